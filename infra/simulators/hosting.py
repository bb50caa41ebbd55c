"""
The deployments of a simulated platform that serves adapters: what is there, how far it is, and what it costs.

A platform's simulator translates its wire contract into these calls. Nothing is really loaded: what a deployment
answers is a matter of its adapter's content and of the question alone (``spoken``).
"""

import asyncio
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from infra.simulators.accounts import GOOD
from infra.simulators.cloud import ADMIN
from infra.simulators.exchange import Asked, Reply
from infra.simulators.faults import Fault, FaultKind, Faults

Json = dict[str, Any]


@dataclass
class SimulatedThing:
    """
    What lies at the platform and costs nothing by itself: an uploaded adapter, an endpoint without machines.

    ``content`` tells an adapter from every other.
    """

    kind: str
    name: str
    listed_from: float
    details: Json = field(default_factory=dict[str, Any])
    content: str = ""
    gone: float | None = None


@dataclass
class SimulatedDeployment:
    """One deployment that was ever created; times are seconds of the wall clock, the rate is that of one replica."""

    name: str
    hourly_rate: float
    replicas: int
    created: float
    ready_from: float
    listed_from: float
    is_broken: bool
    details: Json = field(default_factory=dict[str, Any])
    gone: float | None = None

    @property
    def is_running(self) -> bool:
        """Whether it is loaded."""
        return not self.is_broken and time.time() >= self.ready_from

    @property
    def has_failed(self) -> bool:
        """Whether it has come to nothing, as it was to."""
        return self.is_broken and time.time() >= self.ready_from

    @property
    def cost(self) -> float:
        """What it has cost so far, in US dollars, by the second; one at rest costs nothing."""
        return self.hourly_rate * self.replicas * ((self.gone or time.time()) - self.created) / 3600


@dataclass(frozen=True)
class Bill:
    """What one deployment would have cost; ``gone`` is None while it exists."""

    name: str
    hourly_rate: float
    replicas: int
    created: float
    gone: float | None
    cost: float


@dataclass(frozen=True)
class Refusals:
    """How a platform answers who cannot pay, whom it has no room for, who comes second, and who is out of luck."""

    no_credit: Reply
    no_room: Reply
    taken: Reply
    broken: Reply


class Hosting:
    """All that lies at, and is deployed on, one simulated platform; what changes them is called from its event loop."""

    def __init__(self, *, boot_seconds: float = 0.3, faults: Faults | None = None, key: str = GOOD):
        """``key`` is the one that the platform's simulator takes; ``boot_seconds`` what an adapter takes to load."""
        self.key = key
        self.boot_seconds = boot_seconds
        self.faults = faults or Faults()
        self.things: list[SimulatedThing] = []
        self.deployments: list[SimulatedDeployment] = []
        self._answered: list[tuple[float, str]] = []

    def keep(self, kind: str, name: str, **details: Any) -> SimulatedThing:
        """Have something lie there."""
        made = SimulatedThing(kind, name, self._listed_from(), details)
        self.things.append(made)
        return made

    def deploy(self, name: str, hourly_rate: float, replicas: int, **details: Any) -> SimulatedDeployment:
        """Begin a deployment; takes the faults that concern the next one."""
        now, boot = time.time(), self.boot_seconds
        if slow := self.faults.take(FaultKind.SLOW_BOOT):
            boot = slow.value
        if self.faults.take(FaultKind.ENDLESS_BOOT):
            boot = math.inf
        drift = self.faults.take(FaultKind.PRICE_DRIFT)
        made = SimulatedDeployment(
            name=name,
            hourly_rate=hourly_rate * (drift.value if drift else 1),
            replicas=replicas,
            created=now,
            ready_from=now + boot,
            listed_from=self._listed_from(),
            is_broken=self.faults.take(FaultKind.FAILS_LOADING) is not None,
            details=details,
        )
        self.deployments.append(made)
        return made

    def kept(self, kind: str, name: str) -> SimulatedThing | None:
        """Return what lies there by a name."""
        return next((one for one in self.things if (one.kind, one.name, one.gone) == (kind, name, None)), None)

    def deployed(self, name: str) -> SimulatedDeployment | None:
        """Return the deployment of a name."""
        return next((one for one in self.deployments if one.name == name and one.gone is None), None)

    def listed_things(self, kind: str) -> list[SimulatedThing]:
        """Return the things that a list shows."""
        there = [one for one in self.things if one.kind == kind and one.gone is None]
        return [one for one in there if one.listed_from <= time.time()]

    def listed_deployments(self) -> list[SimulatedDeployment]:
        """Return the deployments that a list shows."""
        return [one for one in self.deployments if one.gone is None and one.listed_from <= time.time()]

    def remove(self, one: SimulatedThing | SimulatedDeployment) -> None:
        """Take something off."""
        one.gone = one.gone or time.time()

    def left(self) -> list[str]:
        """Name all that is still there, each with its kind."""
        things = [f"{one.kind} {one.name}" for one in self.things if one.gone is None]
        return [*things, *(f"deployment {one.name}" for one in self.deployments if one.gone is None)]

    def count(self, name: str) -> None:
        """Note that a deployment has answered."""
        self._answered.append((time.time(), name))

    def lately(self, name: str) -> int:
        """Return how often it has in the last minute."""
        return sum(one == name and at > time.time() - 60 for at, one in self._answered)

    async def creating(self, make: Callable[[], Reply], refusals: Refusals, *, bills: bool = False) -> Reply:
        """Have something created, unless it is time for a trouble; ``bills`` is of what needs room and is paid for."""
        faults = self.faults
        if faults.take(FaultKind.NAME_TAKEN):
            return refusals.taken
        if bills and faults.take(FaultKind.OUT_OF_CREDIT):
            return refusals.no_credit
        if bills and faults.take(FaultKind.NO_CAPACITY):
            return refusals.no_room
        reply = make()
        if reply.status < 300 and faults.take(FaultKind.ERROR_AFTER_CREATE):
            return refusals.broken
        if reply.status < 300 and (late := faults.take(FaultKind.TIMEOUT_AFTER_CREATE)):
            await asyncio.sleep(late.value)
        return reply

    def ledger(self) -> list[Bill]:
        """Return a bill for every deployment that was ever created."""
        return [
            Bill(one.name, one.hourly_rate, one.replicas, one.created, one.gone, one.cost)
            for one in list(self.deployments)
        ]

    def close(self) -> None:
        """Take everything off."""
        for one in [*self.things, *self.deployments]:
            self.remove(one)

    def admin(self, asked: Asked) -> Reply | None:
        """Answer what is asked below ``ADMIN``, which no platform has; None for everything else."""
        match asked.method, asked.path.partition(ADMIN)[2]:
            case "GET", "/ledger":
                return Reply([asdict(bill) for bill in self.ledger()])
            case "GET", "/left":
                return Reply(self.left())
            case "POST", "/faults":
                self.faults.add(*(Fault.model_validate(fault) for fault in json.loads(asked.content)))
                return Reply({"success": True})
            case _:
                return None

    def _listed_from(self) -> float:
        lag = self.faults.take(FaultKind.LIST_LAG)
        return time.time() + (lag.value if lag else 0)
