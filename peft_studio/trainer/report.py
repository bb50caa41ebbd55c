"""Reporter: appends a run's events, and each step's numbers once however often the step is repeated."""

import errno
import sys
from collections.abc import Mapping
from contextlib import suppress

from peft_studio.events import Event, Failure, Log, LogLevel, Metrics
from peft_studio.run_dir import RunDir, make_durable


class Reporter:
    """
    Says what happens in a run.

    An attempt that takes up an older one repeats the steps since the last checkpoint; what events.jsonl already
    holds of them is not said again. On a full disk events wait in memory until there is room. Of several processes
    only one ``speaks``.
    """

    def __init__(self, run: RunDir, *, speaks: bool = True):
        self._run, self._speaks = run, speaks
        self._waiting: list[Event] = []
        self._trained = self._evaluated = 0
        for _, event in run.events():
            if isinstance(event, Metrics):
                step = int(event.metrics.get("step", 0))
                if "loss" in event.metrics:
                    self._trained = max(self._trained, step)
                if "eval_loss" in event.metrics:
                    self._evaluated = max(self._evaluated, step)

    def step(self, step: int, metrics: dict[str, float], line: str | None = None) -> None:
        """Report an optimizer step, with a line for people where there is one to be said."""
        if step <= self._trained:
            return
        self._trained = step
        self._append(Metrics(job_id=self._run.job_id, metrics={"step": step, **metrics}))
        if line is not None:
            self.log(line)

    def evaluation(self, step: int, epoch: float, loss: float, more: Mapping[str, float]) -> None:
        """Report the loss on held-out rows, and what else was measured on them."""
        if step <= self._evaluated:
            return
        self._evaluated = step
        told = {"step": step, "epoch": epoch, "eval_loss": loss, **{f"eval_{name}": more[name] for name in more}}
        self._append(Metrics(job_id=self._run.job_id, metrics=told))
        self.log(f"Step {step}, loss on held-out rows: {loss:.4f}")

    def log(self, message: str, level: LogLevel = "INFO") -> None:
        """Say a line to people."""
        if self._speaks:
            print(f"{level} {message}", file=sys.stderr, flush=True)
        self._append(Log(job_id=self._run.job_id, level=level, message=message))

    def failure(self, failure: Failure) -> None:
        """Report what ended the attempt."""
        self._append(failure)

    def sync(self) -> None:
        """Make everything said so far durable, so that no checkpoint outlives the steps it stands on."""
        with suppress(FileNotFoundError):  # nothing was said
            make_durable(self._run.events_path)

    def _append(self, event: Event) -> None:
        if not self._speaks:
            return
        self._waiting.append(event)
        while self._waiting:
            try:
                self._run.append(self._waiting[0])
            except OSError as error:
                if error.errno not in DISK_FULL:
                    raise
                return
            del self._waiting[0]


DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
