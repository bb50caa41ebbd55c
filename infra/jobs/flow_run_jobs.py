"""A flow run, read as a job: states, fields and tags, one way and back."""

from typing import Any

from prefect.client.schemas.objects import StateType
from pydantic import ValidationError

from infra.jobs.reads import Run
from infra.machines.receipts import cost_of, receipts_of
from infra.platforms.vendors import LOCAL
from infra.settings import Settings
from infra.trackers.waiting import read_tracked
from peft_studio.config import TrainingConfig
from peft_studio.evaluation.comparison import GENERATED
from peft_studio.experiments import project_of
from peft_studio.jobs import Job, JobResult, JobStatus, Phase, TerminationReason, job_id_of
from peft_studio.trackers.table import tracker_named

STATES = {
    # Crashed is a passing state: infra/jobs/recovery.py takes such a run up again, or fails it with a reason.
    JobStatus.PENDING: [StateType.SCHEDULED, StateType.PENDING, StateType.PAUSED, StateType.CRASHED],
    JobStatus.RUNNING: [StateType.RUNNING, StateType.CANCELLING],
    JobStatus.COMPLETED: [StateType.COMPLETED],
    JobStatus.FAILED: [StateType.FAILED],
    JobStatus.CANCELLED: [StateType.CANCELLED],
}
# Tags that say where a job comes from, each before an id: of the job that it is a clone of, of a sweep, of a schedule.
PARENT, SWEEP, SCHEDULE = "parent:", "sweep:", "schedule:"
_status_of = {state: status for status, states in STATES.items() for state in states}


def status_of(run: Run) -> JobStatus:
    """Return the job's status for the flow run's state."""
    return _status_of[run.state_type]


def tags_of(config: TrainingConfig) -> list[str]:
    """Return the tags by which a job is found in Prefect's UI and lists."""
    return [
        f"provider:{config.provider}",
        f"algorithm:{config.algorithm}",
        f"model:{config.base_model}",
        f"project:{project_of(config)}",
    ]


def job_of(run: Run, settings: Settings) -> Job:
    """Read a flow run as a job; looks into the run directory for what is not final yet."""
    job = Job(
        job_id=job_id_of(run.id),
        config=_config_of(run),
        status=status_of(run),
        phase=Phase.QUEUED,
        progress=0.0,
        created_at=run.created,
        started_at=run.start_time,
        attempts=run.run_count,
        parent_job_id=_tagged(run, PARENT),
        sweep_id=_tagged(run, SWEEP),
        schedule_id=_tagged(run, SCHEDULE),
    )
    machines = receipts_of(settings.run_dir(job.job_id)) if job.config.provider != LOCAL else []
    completed = run.state_type is StateType.COMPLETED and run.result is not None
    changes = _outcome(JobResult.model_validate_json(run.result or "")) if completed else _so_far(job, run, settings)
    if job.status.is_final and run.end_time and run.start_time:
        changes["duration_seconds"] = (run.end_time - run.start_time).total_seconds()
        changes["completed_at"] = run.end_time
    if tracker_named(job.config.experiment_tracker):
        changes["tracking"] = read_tracked(settings.run_dir(job.job_id))
    if machines:
        changes |= {"machines": machines, "cost": cost_of(machines)}
    return job.model_copy(update=changes)


def _tagged(run: Run, kind: str) -> str | None:
    return next((tag.removeprefix(kind) for tag in run.tags if tag.startswith(kind)), None)


def _config_of(run: Run) -> TrainingConfig:
    """Return the run's configuration; one that Prefect took and we would not is shown as it is."""
    raw = run.parameters.get("config", {})
    try:
        return TrainingConfig.model_validate(raw)
    except ValidationError:
        return TrainingConfig.model_construct(**({"base_model": "", "dataset_path": ""} | raw))


def _so_far(job: Job, run: Run, settings: Settings) -> dict[str, Any]:
    """What a job that has no result shows: where its record says it is."""
    latest = settings.run_dir(job.job_id).latest()
    changes: dict[str, Any] = {"phase": latest.phase or Phase.QUEUED, "metrics": latest.metrics}
    if total := latest.metrics.get("total_steps"):
        changes["progress"] = min(latest.metrics.get("step", 0) / total, 1.0)
    if job.status is JobStatus.RUNNING and latest.phase is Phase.PAUSED:
        changes["phase"] = Phase.PAUSING  # until its process has told Prefect
    if job.status is JobStatus.PENDING:
        changes["phase"] = _waiting_for(run.state_type, latest.phase)
    if job.status.is_final:
        changes["phase"] = Phase.DONE
        changes["cost"] = 0.0 if job.config.provider == LOCAL else None
    if job.status is JobStatus.CANCELLED:
        changes["termination_reason"] = TerminationReason.CANCELLED
    if job.status is JobStatus.FAILED:
        changes["error"] = latest.failure or {"error": run.state_message}
        changes["termination_reason"] = TerminationReason.of_failure(latest.failure["code"] if latest.failure else "")
    return changes


def _waiting_for(state: StateType, phase: Phase | None) -> Phase:
    """Say what a pending job waits for: its turn, most of the time."""
    if state is StateType.PAUSED:
        return Phase.PAUSED
    if phase is Phase.PAUSING:
        return phase
    return Phase.RECOVERING if phase is Phase.RECOVERING or state is StateType.CRASHED else Phase.QUEUED


def _outcome(result: JobResult) -> dict[str, Any]:
    """What a completed job shows of its result."""
    training = result.training
    metrics = training.model_dump(include={"final_loss", "best_loss", "total_steps", "tokens_per_second"})
    if training.eval_loss is not None:
        metrics["eval_loss"] = training.eval_loss
    if result.evaluation and (held_out := result.evaluation.adapter):
        metrics |= held_out.model_dump(include={"perplexity", "accuracy"}, exclude_none=True) | held_out.metrics
        compared = result.evaluation.comparison
        metrics |= {measure: compared[measure].adapter for measure in GENERATED if measure in compared}
    return {
        "phase": Phase.DONE,
        "progress": 1.0,
        "cost": result.cost,
        "metrics": metrics,
        "termination_reason": TerminationReason.REUSED if result.reused_from else TerminationReason.COMPLETED,
        **{
            name: getattr(result, name)
            for name in (
                *("adapter_id", "artifact", "evaluation", "reused_from", "endpoint", "conversion", "promotion"),
                "step_seconds",
            )
        },
    }
