"""
The running job's record, kept from inside its flow run.

What happens is written to the run directory first, where nothing loses it; then it is shown in Prefect: log
lines, a progress artifact, events named ``peft-studio.…``, and at the end the result and a picture of the loss.
"""

import logging
import time
from pathlib import Path
from typing import cast
from uuid import UUID

from prefect.artifacts import (
    Artifact,
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from prefect.runtime import flow_run as current_flow_run

from infra.jobs.loss_curve import loss_curve
from infra.jobs.reads import RESULT
from infra.prefect_patience import attempt, insist
from infra.settings import Settings, settings
from peft_studio.events import Event, Failure, Log, LogLevel, Metrics, Status, now
from peft_studio.jobs import JobResult, Phase, job_id_of
from peft_studio.run_dir import RunDir

KEY_TAG = "key:"
_PREFECT_SECONDS = 1.0  # metrics go to Prefect at most this often; the run directory has them all


class JobRecord:
    """Tells one job's story. Get the running one with ``JobRecord.current()``."""

    def __init__(self, job_id: str, settings: Settings):
        self.job_id = job_id
        self.run: RunDir = settings.run_dir(job_id)
        self._shown_at = 0.0
        self._progress: UUID | None = None

    @classmethod
    def current(cls) -> "JobRecord":
        """Return the record of the flow run that this code runs in."""
        return cls(job_id_of(UUID(str(current_flow_run.id))), settings())

    @property
    def key(self) -> str:
        """The job's id as Prefect's artifact keys allow it."""
        return self.job_id.replace("_", "-")

    @property
    def key_id(self) -> str | None:
        """The API key that the job was submitted with; None where it was not by one, and outside of its flow run."""
        tags = current_flow_run.tags or []
        return next((tag.removeprefix(KEY_TAG) for tag in tags if tag.startswith(KEY_TAG)), None)

    def read_tags(self) -> list[str]:
        """Ask Prefect for the tags of its flow run: this process has those of its beginning; none outside of one."""
        if current_flow_run.id is None:
            return []
        with get_client(sync_client=True) as client:
            return insist(lambda: client.read_flow_run(UUID(str(current_flow_run.id)))).tags

    @property
    def resource(self) -> dict[str, str]:
        """What events of the job are about, as Prefect names it."""
        return {"prefect.resource.id": f"peft-studio.job.{self.job_id}"}

    def enter(self, phase: Phase) -> None:
        """Note that the job goes on to its next step."""
        self.run.enter(phase)

    def say(self, message: str, level: LogLevel = "INFO") -> None:
        """Log a line for the user."""
        event = Log(job_id=self.job_id, level=level, message=message)
        self.run.append(event)
        self.show(event)

    def fail(self, error: str, details: str = "", code: str = "TRAINING_FAILED") -> None:
        """Note why the job failed, unless the last thing it said was just that."""
        latest = self.run.latest().failure
        if latest is None or latest["error"] != error:
            self.run.append(Failure(job_id=self.job_id, error=error, details=details, code=code))

    def show(self, event: Event) -> None:
        """Show in Prefect an event that is already in the run directory."""
        match event:
            case Log(message=message, level=level):
                logger_of_run().log(logging.getLevelNamesMapping()[level], message)
            case Failure(error=error, details=details):
                logger_of_run().error(f"{error} {details}".strip())
            case Metrics(metrics=metrics):
                attempt(lambda: self._show_metrics(metrics))
            case _:
                pass

    def finish(self, result: JobResult) -> None:
        """Record the result, and show what a person wants to see of it."""
        emit_event("peft-studio.completed", resource=self.resource)
        attempt(lambda: self._show_result(result))
        data = result.model_dump(mode="json")
        insist(lambda: Artifact(type=RESULT, key=f"{self.key}-result", data=data).create())

    def _show_result(self, result: JobResult) -> None:
        if picture := loss_curve(event.metrics for _, event in self.run.events() if isinstance(event, Metrics)):
            create_image_artifact(picture, key=f"{self.key}-loss", description="Loss by optimizer step")
        folder = Path(result.artifact.path).parent.as_uri()
        create_link_artifact(folder, key=f"{self.key}-adapter", description=result.artifact.hash)
        create_markdown_artifact(_summary(result), key=f"{self.key}-summary", description="What came of the job")

    def _show_metrics(self, metrics: dict[str, float]) -> None:
        step, steps = metrics.get("step", 0), metrics.get("total_steps", 0)
        if not steps or (step < steps and time.monotonic() - self._shown_at < _PREFECT_SECONDS):
            return
        self._shown_at = time.monotonic()
        emit_event("peft-studio.metrics", resource=self.resource, payload=metrics)
        percent = 100 * step / steps
        if self._progress is None:
            created = create_progress_artifact(percent, key=f"{self.key}-progress", description="Training")
            self._progress = cast(UUID, created)  # a coroutine only where called from async code
        else:
            update_progress_artifact(self._progress, percent)

    def step_seconds(self) -> dict[str, float]:
        """How long each phase has taken so far, from the record itself."""
        seconds: dict[str, float] = {}
        steps = [event for _, event in self.run.events() if isinstance(event, Status) and event.phase]
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            ended = following.timestamp if following else now()
            seconds[str(step.phase)] = seconds.get(str(step.phase), 0.0) + (ended - step.timestamp).total_seconds()
        return seconds


def logger_of_run() -> "logging.Logger | logging.LoggerAdapter[logging.Logger]":
    """Return Prefect's logger for the current run, or an ordinary one outside of runs."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger(__name__)


def _summary(result: JobResult) -> str:
    """Render the result as a table."""
    training, evaluation = result.training, result.evaluation
    rows = [
        ("Adapter", f"`{result.artifact.path}`"),
        ("Trained by", result.reused_from or "this job"),
        ("Optimizer steps", f"{training.total_steps:,}"),
        ("Tokens trained on", f"{training.tokens:,} ({training.tokens_per_second:,.0f} a second)"),
        ("Last loss", f"{training.final_loss:.4f} (best {training.best_loss:.4f})"),
        ("Cost", "not known" if result.cost is None else f"${result.cost:.2f}"),
    ]
    if evaluation and (before := evaluation.base) and (after := evaluation.adapter):
        if before.loss is not None and after.loss is not None:
            rows.append(("Held-out loss", f"{before.loss:.4f} before, {after.loss:.4f} after"))
        if before.perplexity is not None and after.perplexity is not None:
            rows.append(("Held-out perplexity", f"{before.perplexity:.2f} before, {after.perplexity:.2f} after"))
        if before.accuracy is not None and after.accuracy is not None:
            right = "Held-out tokens right" if after.perplexity is not None else "Held-out rows right"
            rows.append((right, f"{before.accuracy:.1%} before, {after.accuracy:.1%} after"))
    rows += [(f"{name} took", f"{seconds:.1f} s") for name, seconds in result.step_seconds.items()]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    text = f"| | |\n|---|---|\n{table}\n"
    if evaluation and evaluation.answer:
        answer = evaluation.answer
        text += f"\n**Prompt**\n\n{_quoted(answer.prompt)}\n**Base model**\n\n{_quoted(answer.base)}"
        text += f"\n**Adapter**\n\n{_quoted(answer.adapter)}"
    return text


def _quoted(text: str) -> str:
    return "".join(f"> {line}\n" for line in text.splitlines() or [""])
