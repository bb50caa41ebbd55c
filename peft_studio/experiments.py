"""An experiment: a job as a tracker records it; and several of them side by side."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from peft_studio.config import TrainingConfig
from peft_studio.errors import InvalidConfig, NotFound
from peft_studio.jobs import PREFIX as JOB_PREFIX
from peft_studio.jobs import Job, JobStatus, name_of
from peft_studio.trackers.table import tracker_named

PREFIX = "exp_"
LOCAL = "local"  # the studio's own tracker, which records every job
DEFAULT_PROJECT = "default"  # of jobs that name none
SHOWN = ("final_loss", "best_loss", "accuracy")  # metrics that an experiment always has, None until they are known
HIGHER_IS_BETTER = frozenset(("accuracy", "f1", "margin", "rewards/accuracies", "rewards/margins", "tokens_per_second"))
Direction = Literal["maximize", "minimize"]
Numbers = dict[str, float | None]


class Experiment(BaseModel):
    """
    A job as its tracker records it, or a run that somebody else has sent to a tracker.

    ``metrics`` are the job's. Its ``accuracy`` is measured on the held-out rows (``validation_split``, which no step of
    training has seen), with the adapter as it is stored, loaded by stock PEFT: the share of the tokens that carry
    loss, or of the rows for objectives beside sft, that the model gets right (``peft_studio.jobs.HeldOut``). That of
    other runs is whatever they have sent by that name.
    """

    id: str
    tracker: str
    project: str = Field(description="The job's project_name, or 'default'.")
    name: str
    status: JobStatus
    metrics: Numbers = Field(description="final_loss, best_loss and accuracy are always there, null until known.")
    config: TrainingConfig | dict[str, Any] = Field(description="Of a run that is no job here, as its tracker has it.")
    created_at: datetime
    job_id: str | None = Field(description="Null for a run that is no job of this studio.")
    cost: float | None = Field(description="In US dollars; null while nothing is known.")
    duration_seconds: float | None
    url: str | None = Field(default=None, description="Where the tracker shows it.")


class UnavailableTracker(BaseModel):
    """A connected tracker whose runs are missing from a list, and why."""

    tracker: str
    reason: str


class CostAnalysis(BaseModel):
    """What experiments cost, and what a percentage point of accuracy cost in each; null where unknown."""

    total_costs: list[float | None]
    cost_per_accuracy_point: list[float | None]


class Curve(BaseModel):
    """One metric over optimizer steps: ``values`` has a list for each experiment, null at steps it has no value of."""

    steps: list[int]
    values: list[list[float | None]]


class Comparison(BaseModel):
    """Experiments side by side; every list is in the order in which they were named."""

    experiment_ids: list[str]
    metrics: dict[str, list[float | None]]
    configs: list[TrainingConfig | dict[str, Any]]
    config_differences: dict[str, list[Any]] = Field(description="The fields of the configurations that differ.")
    metric: str = Field(description="By which the best performer was chosen.")
    direction: Direction
    best_performer: str | None = Field(description="Null where no experiment has the metric; the first of equals.")
    cost_analysis: CostAnalysis
    curves: dict[str, Curve]


def experiment_id_of(job_id: str) -> str:
    """Return the id of the experiment that records a job."""
    return PREFIX + job_id.removeprefix(JOB_PREFIX)


def job_id_of_experiment(experiment_id: str) -> str:
    """Return the id of the recorded job, by arithmetic alone; raises ``NotFound`` for what is no experiment's id."""
    digits = experiment_id.removeprefix(PREFIX)
    if digits == experiment_id:
        raise no_experiment(experiment_id)
    return JOB_PREFIX + digits


def no_experiment(experiment_id: str) -> NotFound:
    """Say that there is no such experiment."""
    return NotFound(f"There is no experiment {experiment_id!r}.", experiment_id=experiment_id)


def project_of(config: TrainingConfig) -> str:
    """Return the project that a job belongs to."""
    return str(config.project_name or DEFAULT_PROJECT)


def experiment_of(job: Job) -> Experiment:
    """Read a job as the local tracker records it."""
    free = 0.0 if job.config.provider == LOCAL else None
    return Experiment(
        id=experiment_id_of(job.job_id),
        tracker=tracker_named(job.config.experiment_tracker) or LOCAL,
        project=project_of(job.config),
        name=name_of(job.config),
        status=job.status,
        metrics={**dict.fromkeys(SHOWN), **job.metrics},
        config=job.config,
        created_at=job.created_at,
        job_id=job.job_id,
        cost=free if job.cost is None else job.cost,
        duration_seconds=job.duration_seconds,
        url=job.tracking.url if job.tracking else None,
    )


def compare(
    experiments: Sequence[Experiment],
    curves: Mapping[str, Curve],
    metric: str | None = None,
    direction: Direction | None = None,
) -> Comparison:
    """
    Put experiments side by side and find the best.

    It has the highest accuracy where all have one, else the lowest loss, unless another ``metric`` is asked for.
    Raises ``InvalidConfig`` where none of the experiments has that metric.
    """
    metrics = metrics_of(experiments)
    metric = metric or ("loss" if None in metrics["accuracy"] else "accuracy")
    if metric not in metrics:
        known = ", ".join(sorted(metrics))
        raise InvalidConfig(
            f"None of the experiments has the metric {metric!r}.", field="metric", issue=f"Must be one of {known}"
        )
    direction = direction or ("maximize" if metric in HIGHER_IS_BETTER else "minimize")
    costs = [experiment.cost for experiment in experiments]
    return Comparison(
        experiment_ids=[experiment.id for experiment in experiments],
        metrics=metrics,
        configs=[experiment.config for experiment in experiments],
        config_differences=differences([experiment.config for experiment in experiments]),
        metric=metric,
        direction=direction,
        best_performer=best(experiments, metrics[metric], direction),
        cost_analysis=CostAnalysis(
            total_costs=costs,
            cost_per_accuracy_point=list(map(cost_per_point, costs, metrics["accuracy"])),
        ),
        curves=dict(curves),
    )


def metrics_of(experiments: Sequence[Experiment]) -> dict[str, list[float | None]]:
    """Gather each metric of any experiment; ``loss`` is the last one of training."""
    found = [{**experiment.metrics, "loss": last_loss(experiment.metrics)} for experiment in experiments]
    names = dict.fromkeys(["loss", "accuracy", *(name for metrics in found for name in metrics)])
    return {name: [_finite(metrics.get(name)) for metrics in found] for name in names}


def last_loss(metrics: Mapping[str, float | None]) -> float | None:
    """Return the final loss, or the latest while there is none."""
    final = metrics.get("final_loss")
    return metrics.get("loss") if final is None else final


def best(experiments: Sequence[Experiment], values: Sequence[float | None], direction: Direction) -> str | None:
    """Return the id of the first experiment that has the best value."""
    sign = -1 if direction == "maximize" else 1
    ranked = [(sign * value, place) for place, value in enumerate(values) if value is not None]
    return experiments[min(ranked)[1]].id if ranked else None


def cost_per_point(cost: float | None, accuracy: float | None) -> float | None:
    """Return what a percentage point of accuracy cost, to three digits."""
    return float(f"{cost / (accuracy * 100):.3g}") if cost is not None and accuracy else None


def differences(configs: Sequence[TrainingConfig | dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the fields that are not the same in all configurations, each with all values; defaults are resolved."""
    plain = [_plain(config) for config in configs]
    names = dict.fromkeys(name for config in plain for name in config)
    columns = {name: [config.get(name) for config in plain] for name in names}
    return {name: values for name, values in columns.items() if any(value != values[0] for value in values)}


def _plain(config: TrainingConfig | dict[str, Any]) -> dict[str, Any]:
    if isinstance(config, dict):
        return config
    values = config.model_dump(mode="json", warnings=False)
    # Prefect's own command line starts whatever it is given: such a job has failed, and is compared all the same.
    with suppress(KeyError, TypeError):
        values["quantization"] = str(config.effective_quantization)
    return values


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
