"""The machines that jobs can train on: this one, and those of all connected providers."""

import asyncio
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from infra.machines.offers import LOOK_SECONDS, OfferBook, Offered
from infra.planning import capabilities
from infra.planning.machine_choice import likely_resource
from infra.platforms import usable
from infra.platforms.connections import Platforms
from infra.providers.base import Offer
from infra.providers.slugs import count_in
from infra.settings import Settings
from peft_studio.errors import NotFound, ResourceUnavailable
from peft_studio.jobs import JobStatus
from peft_studio.platforms import Feature
from peft_studio.resources import Availability, Pricing, Resource, UnavailableProvider

LOCAL = "local"
FREE = Pricing(hourly_rate=0.0, billing_increment=1, minimum_charge=0.0)


class Counted(Protocol):
    """A page of jobs, of which only the number of all is of interest."""

    @property
    def total(self) -> int:
        """The jobs of all pages."""
        ...


class Queue(Protocol):
    """Where jobs wait."""

    async def list(self, *, status: JobStatus | None = None, provider: str | None = None, limit: int = 20) -> Counted:
        """Return jobs, and how many there are."""
        ...

    async def ready(self) -> None:
        """Raise ``ResourceUnavailable`` while no job could run."""
        ...


@dataclass(frozen=True)
class Machines:
    """Machines, and the providers that did not say which they have."""

    resources: Sequence[Resource]
    unavailable: Sequence[UnavailableProvider] = ()


class Resources:
    """The machines of this studio and of all connected providers."""

    def __init__(self, jobs: Queue, settings: Settings, platforms: Platforms, offers: OfferBook):
        self._jobs = jobs
        self._platforms = platforms
        self._settings = settings
        self._offers = offers
        self._takes: bool | None = None
        self._asking: asyncio.Task[None] | None = None

    async def list(self, provider: str | None = None, available: bool | None = None) -> Machines:
        """Return the machines, all or those that a provider has, or that take jobs or do not."""
        wanted = None if provider is None else await self._known(provider)
        here = asyncio.create_task(self._this_machine()) if wanted in (None, LOCAL) else None
        offered = Offered([]) if wanted == LOCAL else await self._offers.look()
        found = rentable(offer for offer in offered.offers if wanted in (None, offer.provider))
        silent = {name: reason for name, reason in offered.unavailable.items() if wanted in (None, name)}
        if here is not None:
            try:
                found = [await here, *found]
            except ResourceUnavailable as error:
                if not found:
                    raise
                silent[LOCAL] = error.message
        return Machines(
            [one for one in found if available in (None, one.available)],
            [UnavailableProvider(provider=name, reason=reason) for name, reason in silent.items()],
        )

    async def pricing(self, provider: str, resource_id: str) -> tuple[Pricing, Availability]:
        """Return what a machine costs, and how long one waits for it; raises ``NotFound``."""
        name = await self._known(provider)
        if name != LOCAL:
            return await self._rented(name, resource_id)
        if resource_id != LOCAL:
            raise _no_resource(name, resource_id, [LOCAL])
        available, waiting, running = await asyncio.gather(
            self._takes_jobs(), self._count(JobStatus.PENDING), self._count(JobStatus.RUNNING)
        )
        at_once = available and not waiting and running < self._settings.local_jobs
        return FREE, Availability(
            available=available, queue_length=waiting, estimated_wait_minutes=0.0 if at_once else None
        )

    async def _rented(self, provider: str, resource_id: str) -> tuple[Pricing, Availability]:
        offers = await self._offers.in_stock(provider, count_in(resource_id))
        machine = next((one for one in rentable(offers) if one.id == resource_id), None)
        if machine is None:
            raise _no_resource(provider, resource_id, {offer.resource_id for offer in offers})
        boots = [one.boot_seconds for one in offers if one.resource_id == resource_id and one.available]
        return machine.pricing, Availability(
            available=machine.available,
            queue_length=await self._count(JobStatus.PENDING, provider),
            estimated_wait_minutes=round(min(boots) / 60, 2) if boots else None,
        )

    async def _known(self, provider: str) -> str:
        """Return a provider's own name; raises where there is no such one, or none that could be used."""
        if issue := usable.unknown(provider, Feature.TRAINING):
            raise NotFound(f"{issue[0].upper()}{issue[1:]}.", field="provider", provider=provider)
        connected = await self._platforms.connected(usable.outside(provider))
        usable.check(provider, Feature.TRAINING, connected, "provider")
        return next(iter(usable.outside(provider)), LOCAL)

    async def _this_machine(self) -> Resource:
        known = await asyncio.to_thread(capabilities.load, self._settings)
        if known is None:
            raise ResourceUnavailable(
                "This machine has not been measured yet; the worker does so when it starts, so try again in a moment."
            )
        gpu = known.gpus[0] if known.gpus else None
        return Resource(
            id=LOCAL,
            provider=LOCAL,
            name=gpu.name if gpu else "CPU",
            gpu_type=gpu.name if gpu else None,
            gpu_count=len(known.gpus),
            vram_gb=gpu.vram_gb if gpu else None,
            cpu_cores=known.cpu_cores,
            ram_gb=known.ram_gb,
            storage_gb=await asyncio.to_thread(_free_gb, self._settings.data_dir),
            available=await self._takes_jobs(),
            pricing=FREE,
        )

    async def _takes_jobs(self) -> bool:
        """Tell whether this machine takes jobs; while Prefect is slow to say so, whether it did the last time."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask_whether_ready())
        await asyncio.wait([self._asking], timeout=None if self._takes is None else LOOK_SECONDS)
        return bool(self._takes)

    async def _ask_whether_ready(self) -> None:
        try:
            await self._jobs.ready()
            self._takes = True
        except ResourceUnavailable:
            self._takes = False

    async def _count(self, status: JobStatus, provider: str = LOCAL) -> int:
        return (await self._jobs.list(status=status, provider=provider, limit=1)).total


def rentable(offers: Iterable[Offer]) -> list[Resource]:
    """
    Lay offers out as machines: of each kind of a provider's the cheapest that can be had, cheapest kinds first.

    What is offered at a spot price alone is no machine of its own: its price is not one to be relied on.
    """
    kinds: dict[tuple[str, str], list[Offer]] = {}
    for offer in offers:
        kinds.setdefault((offer.provider, offer.resource_id), []).append(offer)
    found = [_machine(kind) for kind in kinds.values() if any(not offer.spot for offer in kind)]
    return sorted(found, key=lambda machine: (machine.pricing.hourly_rate, machine.provider, machine.id))


def _machine(kind: Sequence[Offer]) -> Resource:
    lasting = min((one for one in kind if not one.spot), key=lambda one: (not one.available, one.hourly_rate))
    spot = [one.hourly_rate for one in kind if one.spot and one.available]
    return Resource(
        id=lasting.resource_id,
        provider=lasting.provider,
        name=lasting.name,
        gpu_type=lasting.gpu_type,
        gpu_count=lasting.gpu_count,
        vram_gb=lasting.vram_gb,
        cpu_cores=lasting.cpu_cores,
        ram_gb=lasting.ram_gb,
        storage_gb=lasting.storage_gb,
        available=lasting.available,
        pricing=Pricing(
            hourly_rate=lasting.hourly_rate,
            spot_hourly_rate=min(spot, default=None),
            billing_increment=lasting.billing_increment,
            minimum_charge=lasting.minimum_charge,
        ),
    )


def _no_resource(provider: str, resource_id: str, known: Collection[str]) -> NotFound:
    return NotFound(
        f"The provider {provider!r} has no resource {resource_id[:64]!r}{likely_resource(resource_id, known)}.",
        field="resource_id",
        resource_id=resource_id[:64],
    )


def _free_gb(folder: Path) -> float:
    return round(shutil.disk_usage(folder).free / 1e9, 1)
