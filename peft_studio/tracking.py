"""Where a job's metrics are sent beside the studio's own record, and how far that has come."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Tag = Annotated[str, Field(min_length=1, max_length=64)]
Name = Annotated[str, Field(min_length=1, max_length=128)]


class Tracking(BaseModel):
    """How a job's ``experiment_tracker`` is used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["online", "offline"] = Field(
        default="online", description="offline: W&B's files are written into the run directory, to be synced later."
    )
    run_name: Name | None = Field(default=None, description="The run's name there; by default the job's.")
    tags: list[Tag] = Field(default=[], max_length=32)
    entity: Name | None = Field(
        default=None, description="Whose project it is: a team at W&B, a workspace at Comet; by default the account's."
    )


class TrackingState(StrEnum):
    """How far a job's metrics have come."""

    SENDING = "sending"
    WAITING = "waiting"  # the tracker does not take them; they are sent when it does
    SENT = "sent"
    OFFLINE = "offline"  # written into the run directory, and not sent anywhere


class TrackedRun(BaseModel):
    """A job as its tracker shows it: ``tracking.json`` of the run directory."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    tracker: str
    run_id: str
    url: str | None = Field(default=None, description="Where a browser shows it.")
    state: TrackingState = TrackingState.SENDING
    last_step: int | None = Field(default=None, description="The last optimizer step that was handed over.")
    told: bool = Field(default=False, description="Whether the job has said that they wait.")
    issue: str | None = Field(default=None, description="Why metrics wait.")
    folder: str | None = Field(default=None, description="The folder of what was written for a later sync.")


def plain_config(values: dict[str, Any]) -> dict[str, Any]:
    """Flatten a configuration for trackers that know no nested values: names joined by dots, empty ones left out."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            flat |= {f"{name}.{inner}": one for inner, one in plain_config(value).items()}
        elif value not in (None, {}, []):
            flat[name] = value
    return flat
