"""Training jobs."""

from typing import Any

from peft_studio.answers import (
    CheckpointSaved,
    JobChanged,
    JobCreated,
    JobList,
    JobPlan,
    JobPromoted,
    JobReproduced,
    MetricsHistory,
)
from peft_studio.checkpoints import Checkpoint
from peft_studio.client.calls import Call, model, operation, part, path
from peft_studio.config import TrainingConfig
from peft_studio.events import Log
from peft_studio.jobs import Job, JobStatus
from peft_studio.lineage import Lineage

_PATIENCE = 60.0  # the studio itself waits for the trainer to save and to end


class JobOperations:
    """Submit, watch and control training jobs."""

    @operation
    def create_job(
        self, config: TrainingConfig | dict[str, Any], *, idempotency_key: str | None = None
    ) -> Call[JobCreated]:
        """
        Submit a job; the answer has its id and what it is expected to cost and to take.

        A key of your own makes the very same call safe to repeat, even by another process: it gives the same job.
        """
        return Call("POST", "/jobs", model(JobCreated), json={"config": _plain(config)}, headers=_key(idempotency_key))

    @operation
    def plan_job(self, config: TrainingConfig | dict[str, Any]) -> Call[JobPlan]:
        """Check a configuration and estimate what it takes; creates nothing."""
        return Call("POST", "/jobs/plan", model(JobPlan), json={"config": _plain(config)})

    @operation
    def get_job(self, job_id: str) -> Call[Job]:
        """Return a job as it is now."""
        return Call("GET", path("jobs", job_id), model(Job))

    @operation
    def list_jobs(
        self,
        *,
        status: JobStatus | str | None = None,
        provider: str | None = None,
        project: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Call[JobList]:
        """Return jobs, newest first; ``cursor`` is a page's ``next_cursor``, and gives the page behind it."""
        query = {"status": status, "provider": provider, "project": project, "limit": limit, "cursor": cursor}
        return Call("GET", "/jobs", model(JobList), query)

    @operation
    def cancel_job(self, job_id: str) -> Call[JobChanged]:
        """Stop a job; its last checkpoint is kept."""
        return Call("POST", path("jobs", job_id, "cancel"), model(JobChanged), seconds=_PATIENCE)

    @operation
    def pause_job(self, job_id: str) -> Call[JobChanged]:
        """Hold a job back, or save a checkpoint and give its machine back, until it is resumed."""
        return Call("POST", path("jobs", job_id, "pause"), model(JobChanged), seconds=_PATIENCE)

    @operation
    def resume_job(self, job_id: str) -> Call[JobChanged]:
        """Let a paused job go on from its last checkpoint."""
        return Call("POST", path("jobs", job_id, "resume"), model(JobChanged), seconds=_PATIENCE)

    @operation
    def retry_job(
        self, job_id: str, *, max_cost: float | None = None, max_duration: float | None = None
    ) -> Call[JobChanged]:
        """Let a failed or cancelled job go on from its last checkpoint, with other limits where they are given."""
        given = {"max_cost": max_cost, "max_duration": max_duration}
        limits = {name: limit for name, limit in given.items() if limit is not None} or None
        return Call("POST", path("jobs", job_id, "retry"), model(JobChanged), json=limits, seconds=_PATIENCE)

    @operation
    def clone_job(
        self, job_id: str, changes: dict[str, Any] | None = None, *, idempotency_key: str | None = None
    ) -> Call[JobCreated]:
        """Submit a job like another one, with some fields of its configuration changed."""
        body = {"config": changes or {}}
        headers = _key(idempotency_key)
        return Call("POST", path("jobs", job_id, "clone"), model(JobCreated), json=body, headers=headers)

    @operation
    def reproduce_job(self, job_id: str, *, idempotency_key: str | None = None) -> Call[JobReproduced]:
        """Train a job's adapter again from its lineage, on the very base model and data; tell what else differs."""
        return Call("POST", path("jobs", job_id, "reproduce"), model(JobReproduced), headers=_key(idempotency_key))

    @operation
    def reproduce(
        self, lineage: Lineage | dict[str, Any], *, idempotency_key: str | None = None
    ) -> Call[JobReproduced]:
        """Train an adapter again from the ``lineage.json`` that travels with it, from this studio or another."""
        given = lineage.model_dump(mode="json") if isinstance(lineage, Lineage) else lineage
        headers = _key(idempotency_key)
        return Call("POST", "/jobs/reproduce", model(JobReproduced), json={"lineage": given}, headers=headers)

    @operation
    def promote_job(self, job_id: str, reason: str) -> Call[JobPromoted]:
        """Have an adapter deployed that the job's gate has refused; it takes an admin's key, and is recorded."""
        return Call("POST", path("jobs", job_id, "promote"), model(JobPromoted), json={"reason": reason})

    @operation
    def save_checkpoint(self, job_id: str) -> Call[CheckpointSaved]:
        """Have a running job save a checkpoint now; it goes on training."""
        return Call("POST", path("jobs", job_id, "checkpoint"), model(CheckpointSaved), seconds=_PATIENCE)

    @operation
    def list_checkpoints(self, job_id: str) -> Call[list[Checkpoint]]:
        """Return a job's checkpoints, oldest first."""
        return Call("GET", path("jobs", job_id, "checkpoints"), part("checkpoints", list[Checkpoint]))

    @operation
    def get_metrics(self, job_id: str, *, after_step: int | None = None) -> Call[MetricsHistory]:
        """Return every number that a job has reported so far, or those behind a step."""
        return Call("GET", path("jobs", job_id, "metrics"), model(MetricsHistory), {"after_step": after_step})

    @operation
    def get_logs(self, job_id: str, lines: int = 100) -> Call[list[Log]]:
        """Return a job's newest log lines, oldest first."""
        return Call("GET", path("jobs", job_id, "logs"), part("logs", list[Log]), {"lines": lines})


def _plain(config: TrainingConfig | dict[str, Any]) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude_unset=True) if isinstance(config, TrainingConfig) else config


def _key(idempotency_key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": idempotency_key} if idempotency_key else {}
