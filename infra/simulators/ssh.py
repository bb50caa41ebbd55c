"""
One's own machines: real SSH servers, each with a shell that works in a home of its own.

There is no vendor to ask, so what a user knows of such machines is to be had over HTTP, which starts the servers:
``GET /ssh/credentials``. What is started there is kept in the ledger of a cloud, as if somebody billed it.
"""

import asyncio
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import asyncssh
import httpx

from infra.simulators.cloud import Cloud, SimulatedMachine, environment_of, step_of
from infra.simulators.exchange import App, Asked, Reply, application
from infra.simulators.faults import FaultKind

HOURLY_RATE = 0.5
USER = "trainer"
_MACHINES = Path("peft-studio") / "machines" / os.uname().nodename
_OTHER = "of-another-job"
_AWAY_SECONDS = 1.0
_LOOK_SECONDS = 0.05
_NVIDIA_SMI = "#!/bin/sh\necho 'NVIDIA GeForce RTX 4090, 24564'\n"


def create_ssh(cloud: Cloud, hosts: int = 3) -> App:
    """Make the application, which tells of the hosts and starts them when it is first asked to."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    all_hosts = [_Host(cloud, key) for _ in range(hosts)]

    async def answer(asked: Asked) -> Reply:
        if (told := cloud.admin(asked)) is not None:
            return told
        if (asked.method, asked.path.removeprefix("/ssh")) != ("GET", "/credentials"):
            return Reply({"error": "not found"}, 404)
        ports = [await host.port() for host in all_hosts]
        places = [f"127.0.0.1:{port}" for port in ports]
        known = [f"[127.0.0.1]:{port} {host.public_key}" for port, host in zip(ports, all_hosts, strict=True)]
        return Reply(
            {
                "hosts": ", ".join(places),
                "user": USER,
                "private_key": key.export_private_key().decode(),
                "known_hosts": "\n".join(known),
                "hourly_rate": str(HOURLY_RATE),
            }
        )

    return application(answer)


def credentials(address: str) -> dict[str, str]:
    """Return what connecting to the hosts takes that an application at an address tells of; starts them."""
    return httpx.get(f"{address}/credentials").raise_for_status().json()


class _Host:
    """One machine, and who is let in."""

    def __init__(self, cloud: Cloud, key: asyncssh.SSHKey):
        self.cloud = cloud
        self.key = key
        self.away_until = 0.0
        self._host_key = asyncssh.generate_private_key("ssh-ed25519")
        self._home = Path()
        self._listener: asyncssh.SSHAcceptor | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def public_key(self) -> str:
        """What it proves itself with, as known_hosts has it."""
        return self._host_key.export_public_key().decode().strip()

    async def port(self) -> int:
        """Return where it listens; started with the first call, it ends with the event loop."""
        if self._listener is None:
            self._home = Path(tempfile.mkdtemp(prefix="peft-studio-host-"))
            program = self._home / "bin" / "nvidia-smi"
            program.parent.mkdir()
            program.write_text(_NVIDIA_SMI)
            program.chmod(0o755)
            self._listener = await asyncssh.listen(
                "127.0.0.1",
                0,
                server_factory=lambda: _Server(self),
                process_factory=self._shell,
                server_host_keys=[self._host_key],
            )
            self._watching = asyncio.create_task(self._watch(self._listener))
        return self._listener.get_port()

    async def _watch(self, listener: asyncssh.SSHAcceptor) -> None:
        try:
            while True:
                self._look()
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            listener.close()
            for folder in self._folders():
                _kill(folder)
            shutil.rmtree(self._home, ignore_errors=True)
            await listener.wait_closed()

    async def _shell(self, process: "asyncssh.SSHServerProcess[str]") -> None:
        """Run what a login asks for, in the ways of hosts that have their troubles."""
        is_rent = "rent" in shlex.split(process.command or "")
        faults, other = self.cloud.faults, self._home / _MACHINES / _OTHER
        if is_rent and faults.take(FaultKind.NO_CAPACITY):
            other.mkdir(parents=True)
        known = len(self.cloud.machines)
        script = await process.stdin.read()
        code, output = await asyncio.to_thread(self._run, process.command or "true", script)
        self._look()
        shutil.rmtree(other, ignore_errors=True)
        if len(self.cloud.machines) > known:
            if faults.take(FaultKind.ERROR_AFTER_CREATE):
                process.channel.get_connection().abort()
                return
            if late := faults.take(FaultKind.TIMEOUT_AFTER_CREATE):
                await asyncio.sleep(late.value)
        with suppress(OSError):  # nobody may listen any more
            process.stdout.write(output)
            process.exit(code)

    def _run(self, command: str, script: str) -> tuple[int, str]:
        # Not by asyncio: uvloop's child processes inherit what is to be closed, and what they start keeps it open.
        path = f"{self._home / 'bin'}{os.pathsep}{environment_of(self._home)['PATH']}"
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self._home,
            env=environment_of(self._home) | {"PATH": path},
            input=script.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        return done.returncode, done.stdout.decode()

    def _folders(self) -> list[Path]:
        root = self._home / _MACHINES
        return (
            [folder for folder in root.iterdir() if folder.is_dir() and folder.name != _OTHER] if root.exists() else []
        )

    def _look(self) -> None:
        """Bring the ledger up to date with the folders that machines are."""
        for machine in self._machines():
            if not machine.home.exists():
                machine.gone = time.time()
        known = {machine.home for machine in self._machines()}
        for folder in self._folders():
            if folder not in known and (folder / "created").exists():
                self._enter(folder)
        for machine in self._machines():
            if machine.ended is None and (machine.home / "exit").exists():
                machine.ended = time.time()
            if machine.preempted_at_step is not None and step_of(machine) >= machine.preempted_at_step:
                machine.lost = machine.lost or time.time()
                _kill(machine.home)

    def _machines(self) -> list[SimulatedMachine]:
        return [machine for machine in self.cloud.existing() if machine.home.is_relative_to(self._home)]

    def _enter(self, folder: Path) -> None:
        preempted = self.cloud.faults.take(FaultKind.PREEMPTED)
        environment = folder / "environment"
        self.cloud.machines[folder.name] = SimulatedMachine(
            id=folder.name,
            name=folder.name,
            command=(),
            environment={"environment": environment.read_text() if environment.exists() else ""},
            hourly_rate=HOURLY_RATE,
            home=folder,
            created=time.time(),
            boot_seconds=0.0,
            listed_from=0.0,
            preempted_at_step=int(preempted.value) if preempted else None,
            started=time.time(),
            starts=1,
        )


class _Server(asyncssh.SSHServer):
    """One connection: let in by key alone, or dropped."""

    def __init__(self, host: _Host):
        self._host = host

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Drop it where the host is away, or where too many come at once."""
        faults = self._host.cloud.faults
        if faults.take(FaultKind.STALE_OFFER):
            self._host.away_until = time.time() + _AWAY_SECONDS
        if time.time() < self._host.away_until or faults.take(FaultKind.RATE_LIMIT):
            conn.abort()

    def public_key_auth_supported(self) -> bool:
        """Take keys."""
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Take the one key, unless it was removed."""
        is_known = username == USER and key.public_data == self._host.key.public_data
        return is_known and self._host.cloud.faults.take(FaultKind.REVOKED_KEY) is None


def _kill(folder: Path) -> None:
    """End all processes of a machine, as a host does that is switched off."""
    with suppress(OSError, ValueError):
        os.killpg(int((folder / "group").read_text()), signal.SIGKILL)
