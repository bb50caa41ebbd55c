"""Experiments: jobs as their trackers recorded them."""

from collections.abc import Sequence

from peft_studio.answers import Comparison, Experiment, ExperimentList
from peft_studio.client.calls import Call, model, operation, part, path


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
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Call[ExperimentList]:
        """Return experiments, newest first; ``cursor`` is a page's ``next_cursor``, and gives the page behind it."""
        query = {"tracker": tracker, "project": project, "limit": limit, "cursor": cursor}
        return Call("GET", "/experiments", model(ExperimentList), query)

    @operation
    def compare_experiments(self, experiment_ids: Sequence[str]) -> Call[Comparison]:
        """Put experiments side by side: metrics, configurations, costs, and which is the best."""
        body = {"experiment_ids": list(experiment_ids)}
        return Call("POST", "/experiments/compare", part("comparison", Comparison), json=body)
