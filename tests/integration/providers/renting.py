"""A provider with a simulated vendor at its other end, for tests of what they make of each other."""

import json
import shlex
import time
import uuid
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import anyio
import pytest

from infra.providers.base import MachineState, Offer, Order, Provider, Rented
from infra.simulators.cloud import RUN_EVENTS, Cloud, SimulatedMachine
from infra.simulators.faults import Fault, FaultKind, Faults
from tests.integration.providers.exchanges import Exchange
from tests.integration.providers.vendors import Vendor

Found = TypeVar("Found")
CREATE_SECONDS = 10.0
PATIENCE_SECONDS = 20.0
SLEEP = ("sleep", "60")


@dataclass(frozen=True)
class Renting:
    """A provider and the simulator it rents from."""

    vendor: Vendor
    cloud: Cloud
    address: str
    exchanges: list[Exchange]

    @property
    def provider(self) -> Provider:
        """The provider, with the good key."""
        return self.provider_with()

    def provider_with(self, create_seconds: float = CREATE_SECONDS, **account: str) -> Provider:
        """Return the provider with little patience, or with another ``key``."""
        return self.vendor.provider(self.vendor.account(self.address, **account), create_seconds)

    def fail(self, kind: FaultKind, value: float = 0.0) -> None:
        """Have something go wrong next; a vendor that cannot is let off."""
        if kind in self.vendor.impossible:
            pytest.skip(f"{self.vendor.name} knows no such trouble")
        self.cloud.faults.add(Fault(kind=kind, value=value))

    async def cheapest(self) -> Offer:
        """Return an offer that can be had."""
        offers = [offer for offer in await self.provider.offers() if offer.available and not offer.spot]
        return min(offers, key=lambda offer: offer.hourly_rate)

    async def rent(self, *command: str, **environment: str) -> Rented:
        """Rent the cheapest machine for a command, which sleeps unless given."""
        return await self.provider.rent(await self.cheapest(), order(*command, **environment))

    async def listed(self, name: str) -> Rented | None:
        """Look a machine up by its name, as whoever got no answer has to."""
        return next((machine for machine in await self.provider.machines() if machine.name == name), None)

    async def becomes(self, machine_id: str, state: MachineState) -> Rented:
        """Wait until a machine is in a state."""

        async def seen() -> Rented | None:
            machine = await self.provider.machine(machine_id)
            return machine if machine is not None and machine.state is state else None

        return await eventually(seen)

    async def goes(self, name: str) -> None:
        """Wait until a machine that was released is not listed, nor anywhere else."""

        async def gone() -> bool | None:
            return await self.listed(name) is None or None

        await eventually(gone)
        assert all(machine.name != name for machine in self.cloud.existing())

    def behind(self, machine: Rented) -> SimulatedMachine:
        """Return what the simulator knows of a machine."""
        return next(one for one in self.cloud.machines.values() if one.name == machine.name)


@contextmanager
def renting_from(vendor: Vendor) -> Generator[Renting]:
    """Serve a vendor's simulator for as long as a block lasts."""
    cloud, exchanges = vendor.cloud(Faults()), list[Exchange]()
    try:
        with vendor.simulator(vendor, cloud, exchanges) as address:
            yield Renting(vendor, cloud, address, exchanges)
    finally:
        cloud.close()


def order(*command: str, **environment: str) -> Order:
    """Return an order with a name that no other has."""
    return Order(
        name=f"pst-{uuid.uuid4().hex[:16]}",
        image="ghcr.io/peft-studio/trainer:1",
        command=command or SLEEP,
        environment=environment,
        disk_gb=20,
        max_seconds=600,
    )


def at_step(step: int) -> tuple[str, ...]:
    """Return a command that reports a step where a job's machine keeps its events, and then sleeps."""
    events = RUN_EVENTS.replace("*", "first")
    line = json.dumps({"type": "metrics", "metrics": {"step": step}})
    return "sh", "-c", f'mkdir -p "$(dirname {events})"; echo {shlex.quote(line)} > {events}; sleep 60'


async def eventually(look: Callable[[], Awaitable[Found | None]]) -> Found:
    """Return what is found, once it is."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (found := await look()) is None:
        assert time.monotonic() < deadline, "it never came to that"
        await anyio.sleep(0.05)
    return found
