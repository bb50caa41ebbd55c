"""Experiments: jobs as their trackers recorded them."""

from collections.abc import Sequence
from typing import Any, Literal

import httpx

from peft_studio.answers import ExperimentList
from peft_studio.client.calls import Call, model, operation, part, path
from peft_studio.experiments import Comparison, Experiment
from peft_studio.jobs import JobStatus


class ExperimentOperations:
    """Look at experiments, and compare them."""

    @operation
    def get_experiment(self, experiment_id: str) -> Call[Experiment]:
        """Return an experiment."""
        return Call("GET", path("experiments", experiment_id), model(Experiment))

    @operation
    def list_experiments(
        self,
        *,
        tracker: str | None = None,
        project: str | None = None,
        status: JobStatus | str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Call[ExperimentList]:
        """Return experiments, newest first; ``cursor`` is a page's ``next_cursor``, and gives the page behind it."""
        query = {"tracker": tracker, "project": project, "status": status, "limit": limit, "cursor": cursor}
        return Call("GET", "/experiments", model(ExperimentList), query)

    @operation
    def compare_experiments(
        self,
        experiment_ids: Sequence[str],
        *,
        metric: str | None = None,
        direction: Literal["maximize", "minimize"] | None = None,
        curves: Sequence[str] | None = None,
    ) -> Call[Comparison]:
        """
        Put experiments side by side: metrics, configurations, costs, and which is the best.

        The best is found by ``metric`` in a ``direction``, by default by accuracy or else by loss; ``curves`` names the
        metrics that are wanted by step.
        """
        choices = {"metric": metric, "direction": direction, "curves": None if curves is None else list(curves)}
        body: dict[str, Any] = {name: value for name, value in choices.items() if value is not None}
        body["experiment_ids"] = list(experiment_ids)
        return Call("POST", "/experiments/compare", part("comparison", Comparison), json=body)

    @operation
    def comparison_picture(
        self, experiment_ids: Sequence[str], *, kind: Literal["png", "svg"] = "png", curves: Sequence[str] | None = None
    ) -> Call[bytes]:
        """Return the curves of experiments as a picture."""
        query = {"ids": ",".join(experiment_ids), "curves": ",".join(curves) if curves else None, "format": kind}
        return Call("GET", "/experiments/compare", _content, query)


def _content(response: httpx.Response) -> bytes:
    return response.content
