"""The machine a job trains on, and the trainer at work on it: alike for this machine and for rented ones."""

from typing import Protocol

from pydantic import BaseModel

from infra.providers.local import STOP_SECONDS

LOCAL = "local"


class Machine(BaseModel):
    """A machine that a job trains on."""

    provider: str
    resource_id: str
    hourly_rate: float
    currency: str = "USD"
    name: str = ""  # in the ledger; this machine has none
    vram_gb: float | None = None  # of one GPU, where it is known

    @property
    def is_rented(self) -> bool:
        """Whether it has to be given back."""
        return bool(self.name)


class Attempt(Protocol):
    """A trainer at work on a machine."""

    def poll(self) -> int | None:
        """Return the trainer's exit code, or None while it works."""
        ...

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Have the trainer save a checkpoint and end; returns when it is gone, by force after so many seconds."""
        ...
