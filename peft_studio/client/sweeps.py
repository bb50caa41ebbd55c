"""Sweeps over hyperparameters."""

from typing import Any

from peft_studio.answers import SweepCancelled, SweepList
from peft_studio.client.calls import Call, model, operation, part, path
from peft_studio.experiments import Comparison
from peft_studio.sweeps import Sweep, SweepConfig

_PATIENCE = 60.0  # each point is checked before anything is started, and a sweep's jobs are waited for


class SweepOperations:
    """Start sweeps, watch them, and compare their points."""

    @operation
    def create_sweep(self, sweep: SweepConfig | dict[str, Any], *, idempotency_key: str | None = None) -> Call[Sweep]:
        """
        Check every point of a sweep, and start it.

        A key of your own makes the very same call safe to repeat, even by another process: it gives the same sweep.
        """
        body = sweep.model_dump(mode="json", exclude_unset=True) if isinstance(sweep, SweepConfig) else sweep
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return Call("POST", "/sweeps", model(Sweep), json=body, headers=headers, seconds=_PATIENCE)

    @operation
    def get_sweep(self, sweep_id: str) -> Call[Sweep]:
        """Return a sweep as it is now, with all its points."""
        return Call("GET", path("sweeps", sweep_id), model(Sweep))

    @operation
    def list_sweeps(self, *, limit: int | None = None, cursor: str | None = None) -> Call[SweepList]:
        """Return sweeps, newest first; ``cursor`` is a page's ``next_cursor``, and gives the page behind it."""
        return Call("GET", "/sweeps", model(SweepList), {"limit": limit, "cursor": cursor})

    @operation
    def compare_sweep(self, sweep_id: str) -> Call[Comparison]:
        """Put all points that have jobs side by side, by the sweep's metric."""
        return Call("GET", path("sweeps", sweep_id, "comparison"), part("comparison", Comparison))

    @operation
    def cancel_sweep(self, sweep_id: str) -> Call[SweepCancelled]:
        """Cancel a sweep and its jobs."""
        return Call("POST", path("sweeps", sweep_id, "cancel"), model(SweepCancelled), seconds=_PATIENCE)
