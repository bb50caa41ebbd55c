"""A sweep over hyperparameters: what varies, when the worst are stopped, and how its points fare."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import to_json

from peft_studio.config import Name, TrainingConfig
from peft_studio.experiments import HIGHER_IS_BETTER, Direction
from peft_studio.jobs import JobStatus
from peft_studio.placement import Limit

PREFIX = "sweep_"
Changes = dict[str, Any]  # fields of a configuration, and their values at one point
MOST_SAMPLES = 1000


class _Words(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Choice(_Words):
    """One of some values, each as likely as the others."""

    distribution: Literal["choice"]
    values: list[Any] = Field(min_length=1, max_length=MOST_SAMPLES)


def _above_low(high: float, info: ValidationInfo) -> float:
    low = info.data.get("low")
    if low is not None and high <= low:
        raise ValueError("Must be above low")
    return high


class Uniform(_Words):
    """Any number from low to high."""

    distribution: Literal["uniform"]
    low: float = Field(allow_inf_nan=False)
    high: Annotated[float, Field(allow_inf_nan=False), AfterValidator(_above_low)]


class LogUniform(_Words):
    """Any number from low to high, each order of magnitude as likely as the others."""

    distribution: Literal["log_uniform"]
    low: float = Field(gt=0, allow_inf_nan=False)
    high: Annotated[float, Field(allow_inf_nan=False), AfterValidator(_above_low)]


class Integer(_Words):
    """Any whole number from low to high, both included."""

    distribution: Literal["integer"]
    low: int
    high: Annotated[int, AfterValidator(_above_low)]


Distribution = Annotated[Choice | Uniform | LogUniform | Integer, Field(discriminator="distribution")]


class RandomSearch(_Words):
    """Points at random, the same ones for the same seed."""

    samples: int = Field(ge=1, le=MOST_SAMPLES, description="How many points are drawn.")
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    parameters: dict[Name, Distribution] = Field(
        min_length=1, max_length=50, description="From what each field of the configuration is drawn."
    )


class EarlyStopping(_Words):
    """
    Stop the worst early: asynchronous successive halving (ASHA), in its variant that stops and never pauses.

    A point that reaches a rung goes on where its metric is among the best 1 / ``reduction_factor`` of all points that
    have reached that rung so far, itself included, and among the best one at least. Source: Li et al., A System for
    Massively Parallel Hyperparameter Tuning, 2018 (arXiv:1810.05934), section 3.
    """

    rungs: list[Annotated[int, Field(ge=1)]] = Field(
        min_length=1, max_length=20, description="Optimizer steps at which points are compared, rising."
    )
    reduction_factor: int = Field(default=3, ge=2, le=100, description="One in so many points passes a rung.")

    @field_validator("rungs")
    @classmethod
    def _rise(cls, rungs: list[int]) -> list[int]:
        if any(later <= earlier for earlier, later in pairwise(rungs)):
            raise ValueError("Must rise")
        return rungs


class _Aims(_Words):
    """What is the same for all points of a sweep."""

    name: Name | None = Field(default=None, description="For people.")
    config: TrainingConfig = Field(description="What is the same at all points.")
    metric: Name = Field(default="eval_loss", description="By which points are compared.")
    direction: Direction | None = Field(
        default=None, description="Whether more of the metric is better, or less; by default as is usual for it."
    )
    parallel: int = Field(default=1, ge=1, le=100, description="Jobs that are under way at the same time.")
    budget: Limit | None = Field(
        default=None, description="US dollars for the whole: what jobs have cost, and may yet cost, stays within them."
    )
    early_stopping: EarlyStopping | None = None

    @property
    def aim(self) -> Direction:
        """Whether more of the metric is better, or less."""
        return self.direction or ("maximize" if self.metric.removeprefix("eval_") in HIGHER_IS_BETTER else "minimize")


class SweepConfig(_Aims):
    """A sweep as it is asked for: exactly one of ``grid``, ``random`` and ``points``."""

    grid: dict[Name, Annotated[list[Any], Field(min_length=1, max_length=MOST_SAMPLES)]] | None = Field(
        default=None, description="Fields and their values: each combination is a point.", min_length=1, max_length=50
    )
    random: RandomSearch | None = None
    points: list[Changes] | None = Field(
        default=None, description="Each point's changes.", min_length=1, max_length=MOST_SAMPLES
    )


class SweepPlan(_Aims):
    """A sweep whose points are known: the parameter of its flow run."""

    points: list[Changes]
    duplicates: int = 0
    key_id: str | None = Field(default=None, description="The API key's id, whose budget pays.")

    def config_of(self, number: int) -> TrainingConfig:
        """Return the configuration of a point."""
        return changed(self.config, self.points[number])


class PointStatus(StrEnum):
    """How a point of a sweep stands: as its job does, and otherwise as here."""

    WAITING = "waiting"  # for its turn: it has no job yet
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STOPPED = "stopped"  # early, because others were better
    REFUSED = "refused"  # it gets no job


class SweepPoint(BaseModel):
    """One point: what is different at it, and what came of it so far."""

    number: int = Field(description="Its place in the sweep, from 0.")
    changes: Changes
    status: PointStatus
    job_id: str | None = None
    experiment_id: str | None = None
    progress: float = 0.0
    value: float | None = Field(default=None, description="The sweep's metric, as it is so far.")
    rungs: dict[int, float] = Field(default={}, description="What the metric was at the rungs it has reached.")
    cost: float | None = Field(default=None, description="US dollars, so far.")
    reason: str | None = Field(default=None, description="Why it was stopped early, or got no job.")


class Sweep(BaseModel):
    """A sweep as it is now."""

    sweep_id: str
    name: str | None = None
    status: JobStatus
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    config: TrainingConfig
    metric: str
    direction: Direction
    parallel: int
    budget: float | None = None
    early_stopping: EarlyStopping | None = None
    duplicates: int = Field(description="Points that were dropped because they were there already.")
    points: list[SweepPoint]
    best: int | None = Field(
        default=None, description="The number of the best point so far, of those that were not stopped."
    )
    cost: float | None = Field(
        default=None, description="US dollars that all jobs have cost so far; null where one is not known."
    )
    message: str | None = Field(default=None, description="How it ended, in a sentence.")


class SweepSummary(BaseModel):
    """A sweep in a list."""

    sweep_id: str
    name: str | None = None
    status: JobStatus
    created_at: datetime
    completed_at: datetime | None = None
    metric: str
    direction: Direction
    points: int
    message: str | None = None


def changed(config: TrainingConfig, changes: Mapping[str, Any]) -> TrainingConfig:
    """Return a configuration with some fields changed; raises pydantic's ``ValidationError``."""
    whole = config.model_dump(mode="json", exclude_unset=True) | dict(changes)
    return TrainingConfig.model_validate_json(to_json(whole), strict=True)
