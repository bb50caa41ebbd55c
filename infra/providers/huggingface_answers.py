"""What Hugging Face answers about jobs and flavours, and what it means in words that hold for every vendor."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from infra.providers.base import Account, MachineState, Offer, Rented
from infra.providers.slugs import resource_id
from infra.providers.wire import words
from peft_studio.errors import ResourceUnavailable

PLATFORM = "huggingface"
MINUTE = 60
_BOOT_SECONDS = 30.0


class _Accelerator(BaseModel):
    type: str
    model: str
    quantity: int
    vram: str  # of all of them


class Flavor(BaseModel):
    """A kind of machine, and what it costs: millionths of a US dollar a minute."""

    name: str
    title: str = Field(alias="prettyName")
    cpu: str
    ram: str
    storage: str = Field(default="", alias="ephemeralStorage")
    accelerator: _Accelerator | None = None
    price: int = Field(alias="unitCostMicroUSD")
    unit: str = Field(alias="unitLabel")

    @property
    def hourly_rate(self) -> float:
        """US dollars."""
        return self.price * 60 / 1e6


class Status(BaseModel):
    """What a job is doing, and what the vendor says of it."""

    stage: str
    message: str | None = None


class _Durations(BaseModel):
    running: float | None = Field(default=None, alias="runningSecs")


class Job(BaseModel):
    """A job as the vendor shows it."""

    id: str
    flavor: str | None = None
    labels: Mapping[str, str] | None = None
    status: Status
    created: datetime | None = Field(default=None, alias="createdAt")
    durations: _Durations | None = None

    @property
    def is_over(self) -> bool:
        """Whether it costs nothing any more."""
        return self.status.stage in ("COMPLETED", "ERROR", "CANCELED", "DELETED")


def offer_of(flavor: Flavor) -> Offer:
    """Read a flavour as an offer."""
    gpu = flavor.accelerator
    count = gpu.quantity if gpu else 0
    vram = _number(gpu.vram) if gpu else None
    each = vram / count if vram and count else None
    return Offer(
        provider=PLATFORM,
        resource_id=resource_id(gpu.model, each, count) if gpu else flavor.name,
        name=flavor.title,
        gpu_type=gpu.model if gpu else None,
        gpu_count=count,
        vram_gb=each,
        cpu_cores=int(_number(flavor.cpu) or 0) or None,
        ram_gb=_number(flavor.ram),
        storage_gb=_number(flavor.storage),
        hourly_rate=flavor.hourly_rate,
        billing_increment=MINUTE,
        minimum_charge=flavor.price / 1e6,
        boot_seconds=_BOOT_SECONDS,
        ref={"flavor": flavor.name},
    )


def rented_of(job: Job, flavor: Flavor | None, account: Account) -> Rented:
    """Read a job as a machine."""
    state, code = _state(job.status)
    return Rented(
        id=job.id,
        name=(job.labels or {}).get("name", ""),
        state=state,
        hourly_rate=flavor.hourly_rate if flavor else None,
        created_at=job.created,
        exit_code=code,
        reason=words(job.status.message, account),
    )


def _state(status: Status) -> tuple[MachineState, int | None]:
    """Return what a job is doing and how its command ended; a failure without an exit code is not the command's."""
    match status.stage:
        case "RUNNING":
            return MachineState.RUNNING, None
        case "COMPLETED":
            return MachineState.ENDED, 0
        case "ERROR":
            told = re.search(r"exit code:? (\d+)", status.message or "")
            return (MachineState.ENDED, int(told[1])) if told else (MachineState.LOST, None)
        case "CANCELED" | "DELETED":
            return MachineState.LOST, None
        case _:
            return MachineState.BOOTING, None


def parsed(row: Any) -> Job:
    """Read a job's JSON; raises ``ResourceUnavailable`` where it is none."""
    try:
        return Job.model_validate(row)
    except ValidationError:
        raise ResourceUnavailable("Hugging Face shows a job in a way that cannot be read; see its pages.") from None


def _number(text: str) -> float | None:
    """Return the number in words like ``16 GB`` and ``4 vCPU``."""
    found = re.search(r"\d+(\.\d+)?", text)
    return float(found[0]) if found else None
