"""One run of a schedule: whether it starts a job, and which."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import Abort
from prefect.states import AwaitingRetry, Cancelled, Completed, Failed

from infra.budget_reads import flow_runs
from infra.flow_runs import FLOW
from infra.hyperparameters.steering import ENDED, is_live
from infra.jobs.flow_run_jobs import SCHEDULE
from infra.jobs.submission import JobSubmission, deployment_id
from infra.schedules.records import STARTED, ScheduleRecord, find, update
from infra.schedules.times import next_runs
from infra.settings import SCHEDULED
from peft_studio.errors import ResourceUnavailable, StudioError
from peft_studio.schedules import Overlap

_AGAIN = timedelta(seconds=30)  # until a run that has to wait looks again


class Occasion:
    """A flow run that a schedule has planned, once its time has come; it may be killed at any moment and run again."""

    def __init__(self, run_id: UUID, schedule_id: str, client: PrefectClient, submission: JobSubmission):
        self._run_id = run_id
        self._schedule_id = schedule_id
        self._client = client
        self._submission = submission

    async def take(self) -> State:
        """Start the job, or say why not; raises ``Abort`` where the run is put off."""
        run = await self._tagged()
        deployment = await deployment_id(self._client, SCHEDULED)
        found = await find(self._client, deployment, self._schedule_id)
        if found is None:
            return _skipped("The schedule was deleted.")
        place, record = found
        if not record.active:
            return _skipped("The schedule was paused.")
        # Not as it stood when the run was planned: it may have been changed since.
        if await self._is_past(run, record):
            return _skipped("The next run is due already: the studio was away, or this run waited all the time.")
        if not await is_live(record.job.key_id):
            await update(self._client, deployment, place, record.job, active=False)
            return _skipped("The API key that pays was revoked; the schedule is paused.")
        if busy := await self._busy():
            if record.job.overlap is Overlap.SKIP:
                return _skipped(f"The job before it has not ended ({busy} under way).")
            await self._put_off()
        return await self._start(record)

    async def _start(self, record: ScheduleRecord) -> State:
        try:
            submitted = await self._submission.submit(
                record.job.config,
                idempotency_key=f"{self._schedule_id}-{self._run_id.hex}",
                key_id=record.job.key_id,
                tags=[SCHEDULE + self._schedule_id],
            )
        except ResourceUnavailable:
            await self._put_off()
            raise
        except StudioError as error:
            return Failed(message=error.message)
        return Completed(message=STARTED + submitted.job.job_id)

    async def _tagged(self) -> FlowRun:
        """Have this run be found by its schedule."""
        run, tag = await self._client.read_flow_run(self._run_id), SCHEDULE + self._schedule_id
        if tag not in run.tags:
            await self._client.update_flow_run(self._run_id, tags=[*run.tags, tag])
        return run

    async def _is_past(self, run: FlowRun, record: ScheduleRecord) -> bool:
        if not run.auto_scheduled or run.expected_start_time is None:
            return False  # somebody wanted it just now
        following = await next_runs(record.job.cron, record.job.timezone, 1, run.expected_start_time)
        return bool(following) and following[0] <= datetime.now(UTC)

    async def _busy(self) -> int:
        """Count the schedule's jobs that have not ended, but for the one that this run has started itself."""
        live = FlowRunFilter(
            tags=FlowRunFilterTags(all_=[SCHEDULE + self._schedule_id]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(not_any_=list(ENDED))),
        )
        own = f"{self._schedule_id}-{self._run_id.hex}"
        return sum(run.idempotency_key != own for run in await flow_runs(self._client, FLOW, live))

    async def _put_off(self) -> None:
        """Leave, to be run again in a while: a process that only waits is none."""
        again = AwaitingRetry(scheduled_time=datetime.now(UTC) + _AGAIN)
        await self._client.set_flow_run_state(self._run_id, again, force=True)
        raise Abort("The run is put off.")


def _skipped(reason: str) -> State:
    return Cancelled(name="Skipped", message=reason)
