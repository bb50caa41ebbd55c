"""A run's metrics by optimizer step, as they are sent: each step once, and whole."""

import math

from peft_studio.events import Metrics
from peft_studio.run_dir import EventReader, RunDir
from peft_studio.trackers.contract import Row

_NO_METRICS = frozenset(("step", "total_steps"))


class Rows:
    """
    Reads a run's events as they come.

    A row is whole once a later step was reported, or the job has ended: until then held-out metrics of the same step
    may follow. A step that is done again after an interruption, and was sent, is not sent again.
    """

    def __init__(self, run: RunDir, after: int = -1):
        self._reader = EventReader(run)
        self._rows: dict[int, Row] = {}
        self._latest = -1
        self.sent = after

    def take(self, *, ended: bool) -> list[Row]:
        """Return the rows that are whole and were not sent, in the order of their steps; note them by ``sent``."""
        for _, event in self._reader.read():
            if isinstance(event, Metrics) and (step := int(event.metrics.get("step", -1))) > self.sent:
                finite = {name: value for name, value in event.metrics.items() if math.isfinite(value)}
                metrics = {name: value for name, value in finite.items() if name not in _NO_METRICS}
                known = self._rows.get(step)
                metrics = {**(known.metrics if known else {}), **metrics}
                self._rows[step] = Row(step=step, time=event.timestamp.timestamp(), metrics=metrics)
                self._latest = max(self._latest, step)
        whole = sorted(step for step in self._rows if ended or step < self._latest)
        return [self._rows.pop(step) for step in whole]
