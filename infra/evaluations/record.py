"""The running evaluation's record, kept from inside its flow run: how far it is, and what came of it, as artifacts."""

from collections.abc import Generator
from contextlib import contextmanager

from prefect.artifacts import Artifact
from prefect.runtime import flow_run as current_flow_run

from infra.jobs.heartbeats import alone
from infra.jobs.reads import RESULT
from infra.jobs.record import logger_of_run
from infra.prefect_patience import attempt, insist
from infra.settings import Settings, settings
from peft_studio.evaluations import EvaluationResult, EvaluationStep, evaluation_id_of


class EvaluationRecord:
    """Tells one evaluation's story. Get the running one with ``EvaluationRecord.current()``."""

    def __init__(self, evaluation_id: str, settings: Settings):
        self.evaluation_id = evaluation_id
        self._folder = settings.evaluations / evaluation_id

    @classmethod
    def current(cls) -> "EvaluationRecord":
        """Return the record of the flow run that this code runs in."""
        return cls(evaluation_id_of(str(current_flow_run.id)), settings())

    def say(self, step: str, progress: float) -> None:
        """Tell what the evaluation is at, and how far it has come, of 1."""
        logger_of_run().info("%s (%.0f %%)", step, 100 * progress)
        attempt(lambda: self._write(EvaluationStep(step=step, progress=progress)))

    def finish(self, result: EvaluationResult) -> None:
        """Record what came of it."""
        insist(lambda: self._write(EvaluationStep(step="done", progress=1, result=result)))

    def fail(self, error: str) -> None:
        """Record why it failed."""
        logger_of_run().error(error)
        insist(lambda: self._write(EvaluationStep(step="done", progress=1, error=error)))

    @contextmanager
    def alone(self) -> Generator[None]:
        """Be the one process that makes this evaluation, and show by heartbeats that it lives."""
        with alone(self._folder):
            yield

    def _write(self, step: EvaluationStep) -> None:
        key = f"{self.evaluation_id.replace('_', '-')}-progress"
        Artifact(type=RESULT, key=key, description=step.step, data=step.model_dump(mode="json")).create()
