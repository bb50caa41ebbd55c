"""
One's own machines over SSH: nothing is rented, a command is started there and, at the end, nothing of it is left.

There are no containers: the command runs with the machine's own Python, in which ``peft-studio[train]`` must be
installed. A host takes one command of ours at a time, and cannot be looked at while it is off: that a machine on it is
gone is never assumed.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from infra import ssh
from infra.providers import ssh_scripts, wire
from infra.providers.base import Account, MachineState, NoCapacity, Offer, Order, Rented, Unclear
from infra.providers.slugs import resource_id
from infra.ssh import Interrupted, Login
from peft_studio.errors import ResourceUnavailable

PLATFORM = "ssh"
_BOOT_SECONDS = 1.0
_MISSING_PYTHON = (
    "its {python} lacks peft-studio[train]: install it there ({python} -m pip install 'peft-studio[train]'), or "
    "connect again with the path of the Python that has it (credentials.python)."
)


@dataclass(frozen=True)
class Facts:
    """What a host tells of itself; sizes in GB, ``gpus`` their names and sizes, None where it does not tell."""

    gpus: Sequence[tuple[str, float | None]]
    cores: int | None
    ram_gb: float | None
    storage_gb: float | None
    is_busy: bool
    missing: str  # what keeps it from training, in words

    @classmethod
    async def of(cls, login: Login, python: str) -> "Facts":
        """Ask a host."""
        said = _Said(await ssh.run(login, ssh_scripts.facts(python), "facts"))
        lacks, trains = said.all("lacks"), any(said.all("python"))
        missing = f"it has no {lacks[0]}; install util-linux and coreutils." if lacks else ""
        return cls(
            gpus=[_gpu(line) for line in said.all("gpu")],
            cores=int(said.number("cores") or 0) or None,
            ram_gb=_in_gb(said.number("memory")),
            storage_gb=_in_gb(said.number("disk")),
            is_busy=said.has("busy"),
            missing=missing or ("" if trains else _MISSING_PYTHON.format(python=python)),
        )


class Ssh:
    """The hosts of one set of credentials; each is one offer."""

    self_release = None  # one's own machine goes on without us

    def __init__(self, account: Account, create_seconds: float = wire.CREATE_SECONDS):
        self._create_seconds = create_seconds
        self._python = account.get("python", "python3")
        self._rate = float(account.get("hourly_rate", "0"))
        self._logins = {login.address: login for login in ssh.logins(account)}

    async def offers(self) -> list[Offer]:
        """Return the hosts that answer; raises what is wrong with one where none does."""
        logins = list(self._logins.values())
        asked = (Facts.of(login, self._python) for login in logins)
        told = await asyncio.gather(*asked, return_exceptions=True)
        offers = [
            self._offer(login, facts) for login, facts in zip(logins, told, strict=True) if isinstance(facts, Facts)
        ]
        if not offers:
            raise next(trouble for trouble in told if isinstance(trouble, BaseException))
        return offers

    async def rent(self, offer: Offer, order: Order) -> Rented:
        """Start the command on the offer's host, unless it was started under this name before."""
        login = self._logins.get(offer.ref["host"])
        if login is None:
            raise NoCapacity(f"{offer.ref['host']} is not among the hosts of the credentials any more.")
        script = ssh_scripts.rent(order.command, order.environment, order.max_seconds, self._python)
        try:
            said = _Said(await ssh.run(login, script, "rent", order.name, seconds=self._create_seconds))
        except Interrupted as error:
            raise Unclear(error.message) from None
        except ResourceUnavailable as error:
            raise NoCapacity(error.message) from None
        if said.has("busy"):
            raise NoCapacity(f"{login.address} is at work on another job.")
        if said.has("lacks"):
            raise NoCapacity(f"{login.address} cannot train: {_MISSING_PYTHON.format(python=self._python)}")
        machines = _machines(login, said)
        if not machines:
            raise Unclear(f"The shell of {login.address} did not say whether it has started the command.")
        return machines[0]

    async def machines(self) -> list[Rented]:
        """Return what was started on any host and not removed; a host that does not answer is an error."""
        listing = ssh_scripts.listing()
        told = await asyncio.gather(*(ssh.run(login, listing, "list") for login in self._logins.values()))
        pairs = zip(self._logins.values(), told, strict=True)
        return [machine for login, said in pairs for machine in _machines(login, _Said(said))]

    async def machine(self, machine_id: str) -> Rented | None:
        """Return one machine, whose id is ``HOST:NAME``."""
        name, login = self._found(machine_id)
        said = _Said(await ssh.run(login, ssh_scripts.look(), "look", name))
        return next(iter(_machines(login, said)), None)

    async def release(self, machine_id: str) -> None:
        """Have the command and all its children end, by force after a while, and then its folder go."""
        name, login = self._found(machine_id)
        await ssh.run(login, ssh_scripts.release(), "release", name)

    async def billed(self, machine_id: str, name: str) -> float | None:
        """Return None: nobody bills one's own machines."""
        return None

    def _found(self, machine_id: str) -> tuple[str, Login]:
        address, _, name = machine_id.rpartition(":")
        if (login := self._logins.get(address)) is None:
            raise ResourceUnavailable(
                f"{address} is not among the hosts of the credentials any more, so the machine {name} cannot be looked "
                "at; connect again with this host, too.",
                platform=PLATFORM,
            )
        return name, login

    def _offer(self, login: Login, facts: Facts) -> Offer:
        name, vram = facts.gpus[0] if facts.gpus else ("CPU", None)
        count = len(facts.gpus)
        times = f" x{count}" if count > 1 else ""
        return Offer(
            provider=PLATFORM,
            resource_id=resource_id(name, vram, count) if facts.gpus else "cpu",
            name=f"{name}{times} at {login.address}" + (f" ({facts.missing})" if facts.missing else ""),
            gpu_type=name if facts.gpus else None,
            gpu_count=count,
            vram_gb=vram,
            cpu_cores=facts.cores,
            ram_gb=facts.ram_gb,
            storage_gb=facts.storage_gb,
            hourly_rate=self._rate,
            billing_increment=1,
            minimum_charge=self._rate / 3600,
            available=not facts.is_busy and not facts.missing,
            boot_seconds=_BOOT_SECONDS,
            ref={"host": login.address},
        )


class _Said:
    """The lines of a script, by their first words."""

    def __init__(self, output: str):
        self._lines = [line.partition(" ") for line in output.splitlines()]

    def all(self, word: str) -> list[str]:
        """Return what stands behind a word in each line that begins with it."""
        return [rest.strip() for first, _, rest in self._lines if first == word]

    def has(self, word: str) -> bool:
        """Tell whether a line begins with a word."""
        return bool(self.all(word))

    def number(self, word: str) -> float | None:
        """Return the number behind a word."""
        return next((float(rest) for rest in self.all(word) if rest.isdigit()), None)


def _machines(login: Login, said: _Said) -> list[Rented]:
    return [_rented(login, line) for line in said.all("machine")]


def _rented(login: Login, line: str) -> Rented:
    name, created, said, *code = line.split()
    reasons = {
        "lost": "The process is gone and has left no exit code: the host was restarted, or the process was killed.",
        "late": "It was killed at the deadline.",
    }
    states = {"booting": MachineState.BOOTING, "running": MachineState.RUNNING, "lost": MachineState.LOST}
    return Rented(
        id=f"{login.address}:{name}",
        name=name,
        state=states.get(said, MachineState.ENDED),
        created_at=datetime.fromtimestamp(int(created), UTC) if created.isdigit() and int(created) else None,
        exit_code=int(code[0]) if code else None,
        reason=reasons.get(said, ""),
    )


def _gpu(line: str) -> tuple[str, float | None]:
    """Read ``NVIDIA GeForce RTX 4090, 24564``, whose number is in MiB."""
    name, _, size = line.rpartition(", ")
    return (name, round(int(size) / 1024, 1)) if name and size.isdigit() else (line, None)


def _in_gb(kilobytes: float | None) -> float | None:
    return round(kilobytes * 1024 / 1e9, 1) if kilobytes else None
