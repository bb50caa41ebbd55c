"""
What every vendor of machines does, and what it guarantees: the contract behind ``docs/add-a-provider.md``.

A provider is a thin translation of one vendor's API. It keeps nothing, decides nothing and retries nothing that could
rent twice: what is rented, for how long and at what price is the business of ``infra/machines``, which writes a
machine's name into its ledger before it asks a provider for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from peft_studio.errors import ResourceUnavailable
from peft_studio.remote.self_release import SelfRelease

SHORTEST_SECRET = 6  # characters; nothing shorter is a key, and hiding it would garble what is said


class NoCapacity(ResourceUnavailable):
    """The vendor has no machine of this kind at the moment; another offer may do."""


class Unclear(ResourceUnavailable):
    """The vendor did not say whether it has done what it was asked: it must be looked up by name."""


class MachineState(StrEnum):
    """What a machine is doing, in words that hold for every vendor."""

    BOOTING = "booting"  # it exists, and does not run our command yet
    RUNNING = "running"
    ENDED = "ended"  # our command has ended or the container was stopped; the machine is there and may cost money
    LOST = "lost"  # the vendor took it away or its host is gone: it never comes back by itself


class Offer(BaseModel):
    """A kind of machine that could be rented now; sizes in GB, money in US dollars. None where nobody knows."""

    model_config = ConfigDict(frozen=True)

    provider: str
    resource_id: str = Field(description="What users name it by: gpu-rtx4090, or gpu-rtx4090-x2 for two of them.")
    name: str
    gpu_type: str | None
    gpu_count: int
    vram_gb: float | None = Field(description="Of one GPU.")
    cpu_cores: int | None = None
    ram_gb: float | None = None
    storage_gb: float | None = None
    hourly_rate: float = Field(description="Of the whole machine, disk included where the vendor says so.")
    spot: bool = False
    billing_increment: int = Field(description="Seconds; every one that is begun is paid for.")
    minimum_charge: float = Field(description="What the shortest rental costs: one increment, at all vendors so far.")
    available: bool = True
    region: str | None = None
    boot_seconds: float = Field(description="Usual time from renting to our command's first line, without the image.")
    ref: Mapping[str, str] = Field(default={}, description="The vendor's own handles of this very offer.")


class Order(BaseModel):
    """What a machine is rented for. Nothing in it is secret: vendors show it to whoever may list machines."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="Unique for ever; at most 63 characters of [a-z0-9-], so that every vendor takes it.")
    image: str
    command: Sequence[str]
    environment: Mapping[str, str]
    disk_gb: int
    max_seconds: int = Field(description="Vendors that can end a machine by themselves are told to, after so long.")


class Rented(BaseModel):
    """A machine as its vendor shows it."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="The vendor's own.")
    name: str
    state: MachineState
    hourly_rate: float | None = Field(default=None, description="What it really costs, where the vendor says so.")
    created_at: datetime | None = None
    exit_code: int | None = Field(default=None, description="Of our command, where the vendor says so.")
    reason: str = Field(default="", description="The vendor's own words on its state: a missing image, say.")


@dataclass(frozen=True)
class Account:
    """
    Where a vendor is, and the credentials for it; ``repr`` does not show them.

    ``folder`` is where this studio lays files out for vendors that read a disk.
    """

    url: str
    _values: Mapping[str, str]
    folder: Path | None = None

    def __repr__(self) -> str:
        return f"Account({self.url!r})"

    def get(self, field: str, default: str = "") -> str:
        """Return one credential."""
        return self._values.get(field) or default

    def without_secrets(self, text: str) -> str:
        """Return a text with every credential that it repeats hidden."""
        for value in sorted(self._values.values(), key=len, reverse=True):
            text = text.replace(value, "***") if len(value) >= SHORTEST_SECRET else text
        return text


class Provider(Protocol):
    """
    One vendor, with one account. Made anew for each piece of work: it holds no connection and no state.

    Every method may raise ``CredentialRefused`` (the key is revoked or may not do this), ``InsufficientCredits``,
    ``RateLimitExceeded`` (with ``retry_after_seconds``, once patience has run out) and ``ResourceUnavailable`` (no
    answer). Methods that only read are repeated within their patience; ``rent`` is never repeated.
    """

    async def offers(self) -> list[Offer]:
        """Return what can be rented, sold-out kinds included (``available`` false), in no order. Prices are live."""
        ...

    async def rent(self, offer: Offer, order: Order) -> Rented:
        """
        Create a machine that runs the order's command, and return as soon as the vendor has accepted it.

        Raises ``NoCapacity`` where this offer is gone or sold out and nothing was created; ``Unclear`` where the answer
        was lost or was a failure of the vendor's, so that a machine may exist; ``InvalidConfig`` where the vendor
        finds fault with the order itself. A machine that the vendor made and did not start is returned as ended: it
        may have cost something, and is there until it is released.
        """
        ...

    async def machines(self) -> list[Rented]:
        """Return every machine of the account, whoever made it; one that is no longer billed may be left out."""
        ...

    async def machine(self, machine_id: str) -> Rented | None:
        """Return one machine by the vendor's id; None where the vendor knows of none (any more)."""
        ...

    async def release(self, machine_id: str) -> None:
        """End a machine for good, disk included; silent where it is gone already. Does not wait until it is gone."""
        ...

    async def billed(self, machine_id: str, name: str) -> float | None:
        """Return what the vendor says the machine has cost so far; None where it does not tell, or not yet."""
        ...

    @property
    def self_release(self) -> SelfRelease | None:
        """
        How a machine of this account ends itself, with a key that its vendor gives to it and to no other.

        None where a machine has no such key: then its studio ends it, or the vendor after ``Order.max_seconds``.
        """
        ...


@runtime_checkable
class CountsStock(Protocol):
    """A provider whose ``offers`` tell of the stock of single GPUs, and which has to be asked anew for several."""

    async def offers_in_stock(self, gpu_count: int) -> list[Offer]:
        """Return the same offers, ``available`` where so many GPUs are to be had on one machine."""
        ...


async def offers_for(provider: Provider, gpu_count: int) -> list[Offer]:
    """Return what can be rented by a job that needs so many GPUs; offers of other numbers may show another's stock."""
    if gpu_count > 1 and isinstance(provider, CountsStock):
        return await provider.offers_in_stock(gpu_count)
    return await provider.offers()


@runtime_checkable
class ForgetsEnded(Protocol):
    """A provider whose ``machines`` leaves out those that ended by themselves, although they were paid for."""

    async def ended(self, name: str) -> Rented | None:
        """Return the machine of a name that is over; None where there was none."""
        ...
