"""What is said to a sender, and what it answers."""

from collections.abc import Sequence
from typing import Any, Protocol

from pydantic import BaseModel, Field, SecretStr

from peft_studio.jobs import JobStatus


class TrackerUnavailable(Exception):
    """Raised when a tracker does not take what it is sent; ``refused`` where it is the credentials it does not take."""

    def __init__(self, message: str, *, refused: bool = False):
        super().__init__(message)
        self.refused = refused


class Destination(BaseModel):
    """The run at the tracker. ``folder`` is where its library may write; opened again, it is the same run."""

    run_id: str
    name: str
    project: str
    entity: str | None = None
    tags: list[str] = []
    config: dict[str, Any] = {}
    started_at: float = Field(description="Seconds since the epoch.")
    folder: str
    offline: bool = False
    url: str | None = Field(default=None, description="Where the tracker is.")
    credentials: dict[str, SecretStr] = {}

    def secret(self, name: str) -> str | None:
        """Return a credential in clear, or None where it was not given."""
        return self.credentials[name].get_secret_value() if name in self.credentials else None


class Opened(BaseModel):
    """What the tracker knows of the run: its last optimizer step, and where a browser shows it."""

    last_step: int | None = None
    url: str | None = None
    folder: str | None = None


class Row(BaseModel):
    """The metrics of one optimizer step; ``time`` in seconds since the epoch."""

    step: int
    time: float
    metrics: dict[str, float]


class Ending(BaseModel):
    """How the job ended; ``metrics`` are its final ones."""

    status: JobStatus
    time: float
    last_step: int | None = None
    metrics: dict[str, float] = {}


class Tracker(Protocol):
    """A tracker's library. Each method raises ``TrackerUnavailable``; rows come in the order of their steps."""

    def open(self, destination: Destination) -> Opened:
        """Begin the run, or go on with it."""
        ...

    def log(self, rows: Sequence[Row]) -> None:
        """Hand over rows; what is handed over need not have arrived before ``finish``."""
        ...

    def finish(self, ending: Ending) -> None:
        """Return when all has arrived, and the run is marked as ended."""
        ...


class Command(BaseModel):
    """A line of the sender's standard input: one of the three."""

    open: dict[str, Any] | None = None  # a Destination, its secrets in clear
    log: list[Row] | None = None
    finish: Ending | None = None


class Reply(BaseModel):
    """A line of its standard output."""

    opened: Opened | None = None
    error: str | None = None
    refused: bool = False
