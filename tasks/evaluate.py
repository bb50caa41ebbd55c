"""Measure what the adapter is worth."""

import time
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from infra.jobs.record import JobRecord
from infra.machines.jobs import JobMachines
from infra.providers.local import LocalAttempt
from peft_studio.errors import TrainerDied, TrainingFailed
from peft_studio.jobs import Evaluation, Phase
from peft_studio.plan import Plan
from tasks.retrying import retry_on
from tasks.upload import Stored


@task(
    name="evaluate",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[1, 10],
    retry_condition_fn=retry_on(TrainerDied),
    timeout_seconds=4 * 3600,
)
def evaluate(stored: Stored, plan: Plan) -> Evaluation:
    """Compare base model and stored adapter on the held-out rows and on one prompt."""
    record = JobRecord.current()
    record.enter(Phase.EVALUATING)
    if JobMachines(record).receipts and (found := record.run.read_evaluation()):
        return found  # the rented machine has measured the adapter before it was given back
    attempt = LocalAttempt("peft_studio.trainer.evaluate", record.run, str(Path(stored.artifact.path).parent))
    try:
        while (code := attempt.poll()) is None:
            time.sleep(0.1)
    finally:
        attempt.stop()
    evaluation = record.run.read_evaluation()
    if code == 0 and evaluation is not None:
        return evaluation
    if failure := record.run.read_failure():
        raise TrainingFailed(failure.error, issue=failure.details, code=failure.code)
    raise TrainerDied(f"The evaluation ended without a word, with code {code}.")
