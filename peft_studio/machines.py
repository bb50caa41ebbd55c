"""Rented machines: the receipt that the studio keeps of each, from before it exists until it is seen gone."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class MachineStatus(StrEnum):
    """How far a rented machine has come."""

    INTENDED = "intended"  # its name is written down, its vendor is being asked
    RENTED = "rented"  # its vendor has it, it boots
    READY = "ready"  # it has reported to the studio
    RELEASING = "releasing"  # its vendor was told to end it
    GONE = "gone"  # its vendor's own list does not show it any more
    NEVER = "never"  # its vendor has none of this name: nothing was created, nothing is paid
    STRANDED = "stranded"  # it could not be ended: a person has to see to it at the vendor's

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be done, or can be."""
        return self in (MachineStatus.GONE, MachineStatus.NEVER)


class MachineReceipt(BaseModel):
    """One machine that was rented for a job; money in US dollars, None where nobody knows."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field(description="By which its vendor lists it.")
    provider: str
    resource_id: str
    job_id: str
    attempt: int = Field(description="1 for a job's first machine.")
    status: MachineStatus
    spot: bool = False
    vram_gb: float | None = Field(default=None, description="Memory of one GPU, in GB.")
    machine_id: str | None = Field(default=None, description="The vendor's own id.")
    offered_rate: float = Field(description="An hour's price as it was listed.")
    hourly_rate: float | None = Field(default=None, description="An hour's price, read after the machine was up.")
    billing_increment: int = Field(description="Seconds; every one that is begun is paid for.")
    intended_at: datetime
    rented_at: datetime | None = None
    ready_at: datetime | None = None
    released_at: datetime | None = None
    gone_at: datetime | None = Field(default=None, description="When the vendor's own list no longer showed it.")
    cost: float | None = None
    cost_from: Literal["vendor", "rate", "person"] | None = Field(
        default=None, description="Whether the vendor has told the cost, it is rate times begun increments, or settled."
    )
    lost: bool = Field(default=False, description="Whether it was taken away, or given up, before its work was done.")
    reason: str = Field(default="", description="Why it was given back, or why it could not be.")
    settled_by: str | None = Field(default=None, description="The admin's key with which it was closed by hand.")
    project: str | None = None
    key_id: str | None = Field(default=None, description="The API key that the job was submitted with.")


class Settlement(BaseModel):
    """What a stranded machine has cost in the end, by a person's word."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cost: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = Field(
        description="In US dollars, as its vendor's console has it."
    )
