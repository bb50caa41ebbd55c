"""
The machines of a simulated vendor: real processes of this machine, and a ledger of what each would have cost.

A vendor's simulator translates its wire contract into these calls. A machine's command runs in a folder of its own,
which is its home, and sees of this machine's environment only what is needed to find Python.
"""

import asyncio
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.simulators.accounts import GOOD
from infra.simulators.exchange import Asked, Reply
from infra.simulators.faults import Fault, FaultKind, Faults

ADMIN = "/_simulator"  # GET …/ledger, GET …/environments, POST …/faults: what a rehearsal looks at and changes
RUN_EVENTS = "peft-studio/run/*/events.jsonl"  # where a job's machine keeps its events, below its home
_PASSED_ON = (
    "PEFT_STUDIO_LAUNCHER",
    "PEFT_STUDIO_WARM_SOCKET",
    "PYTHONPATH",
    "HF_ENDPOINT",
    "HF_HUB_DISABLE_XET",
    "OMP_NUM_THREADS",
    "GOMP_SPINCOUNT",
    "PEFT_STUDIO_THREADS",
    "LANG",
)
_LOOK_SECONDS = 0.05


@dataclass
class SimulatedMachine:
    """One machine that was ever created; times are seconds of the wall clock."""

    id: str
    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    hourly_rate: float
    home: Path
    created: float
    boot_seconds: float
    listed_from: float
    details: dict[str, Any] = field(default_factory=dict[str, Any])
    preempted_at_step: int | None = None
    is_restarted: bool = False
    started: float | None = None
    ended: float | None = None  # when the command ended, where it was not started anew
    lost: float | None = None
    gone: float | None = None
    exit_code: int | None = None
    starts: int = 0
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def is_running(self) -> bool:
        """Whether the command runs, or is about to be started anew."""
        return self.started is not None and self.is_at_work

    @property
    def is_at_work(self) -> bool:
        """Whether it boots or runs: nobody has ended it, nor has its command."""
        return not self.ended and not self.lost and not self.gone


@dataclass(frozen=True)
class Receipt:
    """What one machine would have cost; ``gone`` is None while it exists."""

    id: str
    name: str
    hourly_rate: float
    created: float
    gone: float | None
    cost: float
    starts: int


class Cloud:
    """All machines of one simulated vendor. What changes them is called from the simulator's event loop."""

    def __init__(
        self,
        *,
        boot_seconds: float = 0.3,
        billing_increment: int = 1,
        bills_while_booting: bool = True,
        bills_when_ended: bool = True,
        restarts_ended: bool = False,
        wipes_disk: bool = False,
        gone_when_ended: bool = False,
        faults: Faults | None = None,
        key: str = GOOD,
    ):
        """``key`` is the one that its vendor's simulator takes; ``wipes_disk``: when a container is started anew."""
        self.key = key
        self.boot_seconds = boot_seconds
        self.billing_increment = billing_increment
        self.faults = faults or Faults()
        self.machines: dict[str, SimulatedMachine] = {}
        self._bills_while_booting = bills_while_booting
        self._bills_when_ended = bills_when_ended
        self._restarts_ended = restarts_ended
        self._wipes_disk = wipes_disk
        self._gone_when_ended = gone_when_ended
        self._folder = Path(tempfile.mkdtemp(prefix="peft-studio-cloud-"))
        self._watching: set[asyncio.Task[None]] = set()

    def create(
        self,
        machine_id: str,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        hourly_rate: float,
        **details: Any,
    ) -> SimulatedMachine:
        """Create a machine, which starts its command when it has booted; takes the faults that concern the next one."""
        now, home = time.time(), self._folder / machine_id
        home.mkdir()
        boot = self.boot_seconds
        if slow := self.faults.take(FaultKind.SLOW_BOOT):
            boot = slow.value
        if self.faults.take(FaultKind.ENDLESS_BOOT):
            boot = math.inf
        lag, drift = self.faults.take(FaultKind.LIST_LAG), self.faults.take(FaultKind.PRICE_DRIFT)
        preempted = self.faults.take(FaultKind.PREEMPTED)
        machine = SimulatedMachine(
            id=machine_id,
            name=name,
            command=command,
            environment=environment,
            hourly_rate=hourly_rate * (drift.value if drift else 1),
            home=home,
            created=now,
            boot_seconds=boot,
            listed_from=now + (lag.value if lag else 0),
            details=details,
            preempted_at_step=int(preempted.value) if preempted else None,
            is_restarted=self._restarts_ended or self.faults.take(FaultKind.RESTARTED) is not None,
        )
        self.machines[machine_id] = machine
        task = asyncio.get_running_loop().create_task(self._live(machine))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)
        return machine

    def existing(self) -> list[SimulatedMachine]:
        """Return the machines that are not gone."""
        return [machine for machine in list(self.machines.values()) if machine.gone is None]

    def listed(self) -> list[SimulatedMachine]:
        """Return those that a list shows."""
        return [machine for machine in self.existing() if machine.listed_from <= time.time()]

    def get(self, machine_id: str) -> SimulatedMachine | None:
        """Return a machine that is not gone."""
        machine = self.machines.get(machine_id)
        return machine if machine and machine.gone is None else None

    def preempt(self, machine: SimulatedMachine) -> None:
        """Take a machine from whoever rented it, without a warning."""
        machine.lost = machine.lost or time.time()
        machine.gone = machine.lost if self._gone_when_ended else machine.gone
        _kill(machine)

    def stop(self, machine: SimulatedMachine) -> None:
        """Stop what runs on a machine, or was to; the machine stays."""
        machine.ended = machine.ended or time.time()
        _kill(machine)

    def restart(self, machine: SimulatedMachine) -> None:
        """Start a machine's command anew."""
        _kill(machine)
        machine.process = None

    def terminate(self, machine: SimulatedMachine) -> None:
        """End a machine for good."""
        machine.gone = machine.gone or time.time()
        _kill(machine)

    def cost(self, machine: SimulatedMachine) -> float:
        """Return what a machine has cost so far, in US dollars: every increment that was begun."""
        began = machine.created if self._bills_while_booting else machine.started
        ends = (machine.gone, machine.lost, None if self._bills_when_ended else machine.ended)
        until = min((end for end in ends if end is not None), default=time.time())
        if began is None or until <= began:
            return 0.0
        increments = math.ceil((until - began) / self.billing_increment)
        return increments * self.billing_increment * machine.hourly_rate / 3600

    def ledger(self) -> list[Receipt]:
        """Return a receipt for every machine that was ever created."""
        return [
            Receipt(one.id, one.name, one.hourly_rate, one.created, one.gone, self.cost(one), one.starts)
            for one in list(self.machines.values())
        ]

    def close(self) -> None:
        """End every machine and remove its files."""
        for machine in self.existing():
            self.terminate(machine)
        shutil.rmtree(self._folder, ignore_errors=True)

    def admin(self, asked: Asked) -> Reply | None:
        """Answer what is asked below ``ADMIN``, which no vendor has; None for everything else."""
        match asked.method, asked.path.partition(ADMIN)[2]:
            case "GET", "/ledger":
                return Reply([receipt.__dict__ for receipt in self.ledger()])
            case "GET", "/environments":
                return Reply({one.name: dict(one.environment) for one in self.machines.values()})
            case "POST", "/faults":
                self.faults.add(*(Fault.model_validate(fault) for fault in json.loads(asked.content)))
                return Reply({"success": True})
            case _:
                return None

    async def _live(self, machine: SimulatedMachine) -> None:
        """Boot, run the command, start it anew where the vendor does; until the machine is gone."""
        while machine.is_at_work and time.time() < machine.created + machine.boot_seconds:
            await asyncio.sleep(_LOOK_SECONDS)
        while machine.is_at_work:
            if machine.process is None:
                self._start(machine)
                if not machine.is_at_work:  # ended meanwhile, by another thread, which saw no process yet
                    _kill(machine)
            elif (code := machine.process.poll()) is not None:
                machine.exit_code = code
                if not machine.is_restarted:
                    machine.ended = time.time()
                    machine.gone = machine.ended if self._gone_when_ended else machine.gone
                    return
                if self._wipes_disk:
                    shutil.rmtree(machine.home, ignore_errors=True)
                    machine.home.mkdir(exist_ok=True)
                machine.process = None
            elif machine.preempted_at_step is not None and step_of(machine) >= machine.preempted_at_step:
                self.preempt(machine)
            await asyncio.sleep(_LOOK_SECONDS)

    def _start(self, machine: SimulatedMachine) -> None:
        with (machine.home / "console.log").open("ab") as console:
            machine.process = subprocess.Popen(
                machine.command,
                cwd=machine.home,
                env=environment_of(machine.home) | dict(machine.environment),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        machine.starts += 1
        machine.started = machine.started or time.time()


def environment_of(home: Path) -> dict[str, str]:
    """Return what a machine with this home has in its environment before anyone adds to it."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {"PATH": path, "HOME": str(home)} | passed_on


def _kill(machine: SimulatedMachine) -> None:
    if machine.process is not None:
        with suppress(ProcessLookupError):
            os.killpg(machine.process.pid, signal.SIGKILL)
        machine.process.wait()


def step_of(machine: SimulatedMachine) -> int:
    """Return the last step that the trainer on the machine has reported, or -1."""
    with suppress(OSError, ValueError):
        for file in machine.home.glob(RUN_EVENTS):
            for line in reversed(file.read_bytes().splitlines()):
                if (event := json.loads(line)).get("type") == "metrics":
                    return int(event["metrics"].get("step", -1))
    return -1
