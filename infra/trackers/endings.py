"""How jobs ended, for whoever tells trackers."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Protocol

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from infra.jobs.flow_run_jobs import status_of
from infra.jobs.reads import Run
from peft_studio.jobs import JobStatus, flow_run_id_of, job_id_of
from peft_studio.run_dir import RunDir
from peft_studio.trackers.contract import Ending

_AT_ONCE = 100


class Endings(Protocol):
    """Where the states of jobs are known."""

    async def of(self, job_ids: Collection[str]) -> Mapping[str, tuple[JobStatus, datetime]]:
        """Return those of the jobs that will not change any more by themselves, and when they ended."""
        ...


class EndingsInPrefect:
    """The states of flow runs; a job that was deleted has been cancelled."""

    def __init__(self, client: PrefectClient):
        self._client = client

    async def of(self, job_ids: Collection[str]) -> Mapping[str, tuple[JobStatus, datetime]]:
        """Return those of the jobs that will not change any more by themselves, and when they ended."""
        ended: dict[str, tuple[JobStatus, datetime]] = {}
        wanted = list(job_ids)
        for begin in range(0, len(wanted), _AT_ONCE):
            some = wanted[begin : begin + _AT_ONCE]
            ids = FlowRunFilterId(any_=[flow_run_id_of(job_id) for job_id in some])
            runs = await self._client.read_flow_runs(flow_run_filter=FlowRunFilter(id=ids), limit=_AT_ONCE)
            found = {job_id_of(run.id): run for run in runs}
            for job_id in some:
                run = found.get(job_id)
                status = status_of(Run.of(run)) if run else JobStatus.CANCELLED
                if status.is_final:
                    ended[job_id] = status, (run.end_time if run else None) or datetime.now(UTC)
        return ended


def ending_of(run: RunDir, status: JobStatus, at: datetime, last_step: int | None) -> Ending:
    """Say how a job ended, with its final metrics: what its trainer and its evaluation have left behind."""
    metrics: dict[str, float] = {}
    if summary := run.read_summary():
        metrics |= summary.model_dump(include={"final_loss", "best_loss", "total_steps", "tokens_per_second"})
        metrics |= {"eval_loss": summary.eval_loss} if summary.eval_loss is not None else {}
    evaluation = run.read_evaluation()
    if evaluation and (held_out := evaluation.adapter):
        metrics |= held_out.model_dump(include={"perplexity", "accuracy"}, exclude_none=True) | held_out.metrics
    return Ending(status=status, time=at.timestamp(), last_step=last_step, metrics=metrics)
