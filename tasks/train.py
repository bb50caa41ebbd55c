"""Have the trainer work in the job's run directory, and show what it does."""

import time

from prefect import task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.context import TaskRunContext
from pydantic import BaseModel

from infra.jobs.pausing import is_pause_asked, pause_if_asked
from infra.jobs.record import JobRecord
from infra.machines.base import Machine
from infra.machines.jobs import JobMachines
from infra.settings import settings
from peft_studio.continuity import Continuity
from peft_studio.errors import DiskFull, OutOfMemory, ResourceUnavailable, TrainerDied, TrainingFailed
from peft_studio.jobs import Phase, TrainingSummary
from peft_studio.oom_ladder import step_down
from peft_studio.plan import Plan
from peft_studio.run_dir import EventReader, Request, RunDir
from peft_studio.trainer.outcome import FULL
from tasks.retrying import retry_on

_POLL_SECONDS = 0.1
_CHECKPOINT_SECONDS = 60.0  # a trainer that is paused has time to save what it has
_LOG_LINES = 30


class Trained(BaseModel):
    """A finished adapter: whose run directory holds it, and how it came about."""

    job_id: str
    summary: TrainingSummary


def train(plan: Plan, machine: Machine) -> Trained:
    """Train, unless the very same adapter was trained before and is still there."""
    trained = train_once.with_options(refresh_cache=plan.config.force)(plan, machine)
    if not settings().run_dir(trained.job_id).adapter.is_dir():
        trained = train_once.with_options(refresh_cache=True)(plan, machine)
    record = JobRecord.current()
    if trained.job_id != record.job_id:
        record.say(
            f"This very adapter was trained before, by {trained.job_id}: reused. Submit with force to train again."
        )
    return trained


def _content_key(context: TaskRunContext, arguments: dict[str, object]) -> str:
    """Name the result by what it follows from: model revision, data, configuration and trainer version."""
    plan = arguments["plan"]
    assert isinstance(plan, Plan)
    return f"trained-{plan.cache_key}"


@task(
    name="train",
    cache_policy=CacheKeyFnPolicy(cache_key_fn=_content_key),
    persist_result=True,
    result_serializer="json",
    retries=3,
    retry_delay_seconds=[1, 5, 20],
    retry_condition_fn=retry_on(TrainerDied),
)
def train_once(plan: Plan, machine: Machine) -> Trained:
    """Run the trainer to its end; one that died is run again, from its last checkpoint."""
    record = JobRecord.current()
    pause_if_asked(record)
    record.enter(Phase.TRAINING)
    (record.run.path / "failure.json").unlink(missing_ok=True)
    while (code := _follow(plan, machine, record)) != 0:
        failure = _reason(code, record)
        layout = step_down(record.run) if isinstance(failure, OutOfMemory) and not machine.is_rented else None
        if layout is None:  # a rented machine has gone down all rungs by itself
            raise failure
        record.say(f"Out of memory: the same steps are tried with {layout}.", "WARNING")
    summary = record.run.read_summary()
    if summary is None:
        raise TrainerDied("The trainer ended without a summary.")
    return Trained(job_id=record.job_id, summary=summary)


def _follow(plan: Plan, machine: Machine, record: JobRecord) -> int:
    """Have the trainer work, show what it reports, and return its exit code; ``Pause`` where somebody asks for it."""
    reader, continuity = EventReader(record.run), Continuity()
    for _, event in reader.read():  # shown by an earlier attempt
        continuity.knows(event)
    attempt = JobMachines(record).start(machine, plan)
    try:
        code = None
        while code is None:
            time.sleep(_POLL_SECONDS)
            code = attempt.poll()
            for _, event in reader.read():
                record.show(event)
                continuity.saw(event)
            if code is None and is_pause_asked(record):
                attempt.stop(_CHECKPOINT_SECONDS)
                pause_if_asked(record)
        return code
    finally:
        attempt.stop()
        record.run.withdraw(Request.CHECKPOINT)


def _reason(code: int, record: JobRecord) -> TrainingFailed:
    """Tell an error that would come again from an end that was none of the trainer's doing."""
    if failure := record.run.read_failure():
        if failure.code == ResourceUnavailable.code:  # a hub that is away, say
            return TrainerDied(failure.error, issue=failure.details, code=failure.code)
        if failure.code == "INTERNAL_ERROR":
            record.say(_tail(record.run), "ERROR")
        kind = OutOfMemory if failure.code == OutOfMemory.code else TrainingFailed
        return kind(failure.error, issue=failure.details, code=failure.code)
    if code == FULL:
        return DiskFull(issue="Make room, then retry the job.")
    record.say(f"The trainer ended with code {code}; trying again from its last checkpoint.", "WARNING")
    return TrainerDied(f"The trainer ended without a word, with code {code}.")


def _tail(run: RunDir) -> str:
    return "\n".join(run.log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
