"""What every provider of machines does."""

from typing import Protocol

from pydantic import BaseModel

from peft_studio.plan import Plan
from peft_studio.run_dir import RunDir

STOP_SECONDS = 8.0


class Machine(BaseModel):
    """A machine that a job trains on."""

    provider: str
    resource_id: str
    hourly_rate: float
    currency: str = "USD"


class Attempt(Protocol):
    """A trainer at work on a machine."""

    def poll(self) -> int | None:
        """Return the trainer's exit code, or None while it works."""
        ...

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Have the trainer save a checkpoint and end; returns when it is gone, by force after so many seconds."""
        ...


class Provider(Protocol):
    """One vendor of machines."""

    def rent(self, plan: Plan, job_id: str) -> Machine:
        """Get a machine for a job; called again for the same job it returns the same machine."""
        ...

    def start(self, machine: Machine, run: RunDir) -> Attempt:
        """Start the trainer in the run directory; it takes up where an earlier attempt stopped."""
        ...

    def release(self, machine: Machine) -> float:
        """Give the machine back and return what it cost; done twice it does no harm."""
        ...
