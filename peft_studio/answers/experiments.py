"""Answers about experiments."""

from datetime import datetime
from typing import Any

from peft_studio.answers.answer import Answer


class Experiment(Answer):
    """A job as its tracker recorded it."""

    id: str
    tracker: str
    project: str
    name: str
    status: str
    metrics: dict[str, float | None]
    config: dict[str, Any]
    created_at: datetime
    job_id: str
    cost: float | None = None
    duration_seconds: float | None = None


class ExperimentList(Answer):
    """A page of experiments, newest first."""

    experiments: list[Experiment]
    next_cursor: str | None = None


class CostAnalysis(Answer):
    """What experiments have cost, in US dollars, in the order in which they were asked for."""

    total_costs: list[float | None]
    cost_per_accuracy_point: list[float | None]


class Curve(Answer):
    """One metric by optimizer step; ``values`` has a list for each experiment, None at steps it has no value of."""

    steps: list[int]
    values: list[list[float | None]]


class Comparison(Answer):
    """
    Experiments side by side: every list is in the order in which they were asked for.

    ``best_performer`` was chosen by ``metric``, of which more is better or less, as ``direction`` says.
    """

    metrics: dict[str, list[float | None]]
    configs: list[dict[str, Any]]
    best_performer: str | None
    cost_analysis: CostAnalysis
    experiment_ids: list[str]
    config_differences: dict[str, list[Any]]
    metric: str
    direction: str
    curves: dict[str, Curve]
