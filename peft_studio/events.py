"""
What a job says while it runs: a line of ``events.jsonl`` is a message of ``/ws/jobs/{id}``.

The four kinds and their fields are those of the WebSocket contract. Fields that are not in the contract
are additions; a reader ignores what it does not know.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from peft_studio.jobs import JobStatus, Phase

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


def now() -> datetime:
    """The current time in UTC."""
    return datetime.now(UTC)


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    job_id: str
    timestamp: datetime = Field(default_factory=now)
    cursor: str | None = Field(default=None, description="Where to resume a stream after this message.")


class Status(_Message):
    """The job changed its state or went on to its next phase."""

    type: Literal["status"] = "status"
    status: JobStatus
    phase: Phase | None = None


class Metrics(_Message):
    """
    Numbers of one optimizer step, or of an evaluation at that step.

    ``metrics`` always holds ``step`` and ``epoch``; training steps add ``loss`` (mean over the tokens that
    carry loss), ``learning_rate``, ``grad_norm``, ``tokens_per_second``, ``total_steps``;
    evaluations add ``eval_loss`` and ``eval_accuracy``. Objectives beside sft add what they measure, by TRL's names.
    """

    type: Literal["metrics"] = "metrics"
    metrics: dict[str, float]


class Log(_Message):
    """One line for people."""

    type: Literal["log"] = "log"
    level: LogLevel = "INFO"
    message: str


class Failure(_Message):
    """The job met an error. ``error`` is one sentence, ``details`` says what to do about it."""

    type: Literal["error"] = "error"
    error: str
    details: str = ""
    code: str = "TRAINING_FAILED"


Event = Annotated[Status | Metrics | Log | Failure, Field(discriminator="type")]
_event: TypeAdapter[Event] = TypeAdapter(Event)


def parse_event(line: str | bytes | dict[str, Any]) -> Event:
    """Read one event from a JSON line or a decoded object; raises ``pydantic.ValidationError`` otherwise."""
    return _event.validate_python(line) if isinstance(line, dict) else _event.validate_json(line)
