"""The machines that jobs can train on: this one."""

import asyncio
import shutil
from pathlib import Path
from typing import Protocol

from infra import capabilities
from infra.platforms import usable
from infra.platforms.connections import Platforms
from infra.settings import Settings
from peft_studio.errors import NotFound, ResourceUnavailable
from peft_studio.jobs import JobStatus
from peft_studio.platforms import Feature
from peft_studio.resources import Availability, Pricing, Resource

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


class Resources:
    """The machines of all connected providers; ``local`` is the only one so far."""

    def __init__(self, jobs: Queue, settings: Settings, platforms: Platforms):
        self._jobs = jobs
        self._platforms = platforms
        self._settings = settings

    async def list(self, provider: str | None = None, available: bool | None = None) -> list[Resource]:
        """Return the machines, all or those that a provider has, or that take jobs or do not."""
        if provider is not None:
            await self._check(provider)
        machine = await self._this_machine()
        return [machine] if available in (None, machine.available) else []

    async def pricing(self, provider: str, resource_id: str) -> tuple[Pricing, Availability]:
        """Return what a machine costs, and how long one waits for it; raises ``NotFound``."""
        await self._check(provider)
        if resource_id != LOCAL:
            raise NotFound(
                f"The provider 'local' has no resource {resource_id!r}; it has 'local'.",
                field="resource_id",
                resource_id=resource_id,
            )
        available, waiting, running = await asyncio.gather(
            self._takes_jobs(), self._count(JobStatus.PENDING), self._count(JobStatus.RUNNING)
        )
        at_once = available and not waiting and running < self._settings.local_jobs
        return FREE, Availability(
            available=available, queue_length=waiting, estimated_wait_minutes=0.0 if at_once else None
        )

    async def _check(self, provider: str) -> None:
        if issue := usable.unknown(provider, Feature.TRAINING):
            raise NotFound(f"{issue[0].upper()}{issue[1:]}.", field="provider", provider=provider)
        connected = await self._platforms.connected(usable.outside(provider))
        usable.check(provider, Feature.TRAINING, connected, "provider")

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
        try:
            await self._jobs.ready()
        except ResourceUnavailable:
            return False
        return True

    async def _count(self, status: JobStatus) -> int:
        return (await self._jobs.list(status=status, provider=LOCAL, limit=1)).total


def _free_gb(folder: Path) -> float:
    return round(shutil.disk_usage(folder).free / 1e9, 1)
