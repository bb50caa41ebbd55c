"""Answers about experiments."""

from datetime import datetime
from typing import Any

from peft_studio.answers.answer import Answer


class Experiment(Answer):
    """A job as its tracker recorded it."""

    id: str
    tracker: str
    project: str | None = None
    name: str
    status: str
    metrics: dict[str, float | None]
    config: dict[str, Any]
    created_at: datetime


class ExperimentList(Answer):
    """A page of experiments, newest first."""

    experiments: list[Experiment]
    next_cursor: str | None = None


class CostAnalysis(Answer):
    """What experiments have cost, in US dollars, in the order in which they were asked for."""

    total_costs: list[float | None]
    cost_per_accuracy_point: list[float | None]


class Comparison(Answer):
    """Experiments side by side: every list is in the order in which they were asked for."""

    metrics: dict[str, list[float | None]]
    configs: list[dict[str, Any]]
    best_performer: str | None
    cost_analysis: CostAnalysis
