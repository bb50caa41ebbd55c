"""
Our words in Prefect, and back: the API's only door to it.

A job is a flow run of ``finetune``; its id, configuration, state and result are Prefect's: changed through its server,
read from its database. What happens within a run is read from its run directory, where it is written first.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from itertools import takewhile
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import State, StateType, WorkPoolStatus
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run as current_flow_run
from prefect.states import Cancelled, Cancelling, Completed, Failed

from infra.budgets import BudgetsInPrefect
from infra.jobs.event_feed import EventFeeds
from infra.jobs.flow_run_jobs import PARENT, STATES, job_of, status_of, tags_of
from infra.jobs.locks import changing
from infra.jobs.reads import JobReads, Run, RunFilter
from infra.jobs.submission import JobSubmission, Submitted
from infra.machines.offers import OfferBook
from infra.prefect_database import PrefectDatabase
from infra.prefect_patience import answering, insist
from infra.settings import DEPLOYMENT, WORK_POOL, Settings
from peft_studio.config import TrainingConfig
from peft_studio.errors import Conflict, InvalidConfig, JobNotFound, ResourceUnavailable
from peft_studio.events import Event, Log, Status, now
from peft_studio.jobs import Job, JobStatus, Phase, flow_run_id_of, job_id_of

CANCELLED = "Cancelled on request."
TAKEN_UP = "Its process was gone; it is taken up again."
ENDED = "An earlier process of the job has brought it to its end."
FLOW = DEPLOYMENT.partition("/")[0]
_FIRST_STATE_SECONDS = 0.05  # until a followed job's state is known for the first time
_STATE_SECONDS = 0.5  # how often Prefect is asked for a followed job's state, however many follow
_CANCEL_SECONDS = 10.0
_READY_SECONDS = 3.0


@dataclass(frozen=True)
class JobPage:
    """Some jobs, newest first, and how many there are in all."""

    jobs: list[Job]
    total: int
    next_cursor: str | None


@dataclass
class _Followed:
    """What is known of a run that somebody follows."""

    last: Run | None = None
    asked: float = 0.0
    reading: asyncio.Task[Run] | None = None


class FlowRuns:
    """Jobs, by way of Prefect's REST API and database; one instance serves a whole process."""

    def __init__(self, settings: Settings, database: PrefectDatabase, offers: OfferBook, budgets: BudgetsInPrefect):
        self._settings = settings
        self._reads = JobReads(database, FLOW)
        self._submission = JobSubmission(settings, offers, budgets, self._prefect)
        self._stack = AsyncExitStack()
        self._client: PrefectClient | None = None
        self._opening = asyncio.Lock()
        self._followed: dict[UUID, _Followed] = {}
        self._feeds = EventFeeds()

    async def submit(
        self,
        config: TrainingConfig,
        *,
        idempotency_key: str | None = None,
        parent_job_id: str | None = None,
        key_id: str | None = None,
    ) -> Submitted:
        """Validate a configuration and start a flow run for it; a repeated key gives the job of the first time."""
        parent = [PARENT + parent_job_id] if parent_job_id else []
        return await self._submission.submit(config, idempotency_key=idempotency_key, key_id=key_id, tags=parent)

    async def get(self, job_id: str) -> Job:
        """Return one job as it is now."""
        run = await self._read(job_id)
        return await asyncio.to_thread(job_of, run, self._settings)

    async def list(
        self,
        *,
        status: JobStatus | None = None,
        provider: str | None = None,
        project: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> JobPage:
        """Return jobs, newest first, those behind the job ``cursor``."""
        wanted = RunFilter(STATES[status] if status else None, provider, project)
        found, total = await asyncio.gather(
            self._reads.page(wanted, limit=limit + 1, after=_behind(cursor)),
            self._reads.count(wanted),
        )
        jobs = await asyncio.to_thread(lambda: [job_of(run, self._settings) for run in found[:limit]])
        return JobPage(jobs, total, next_cursor=jobs[-1].job_id if len(found) > limit else None)

    async def cancel(self, job_id: str) -> Job:
        """Stop a job; return it when it has ended, or as it is after ten seconds."""
        async with changing(job_id), answering():
            run = await self._read(job_id)
            if (status := status_of(run)).is_final:
                raise Conflict(f"The job has already ended: it is {status}.", job_id=job_id, status=status)
            await stop(await self._prefect(), run.id, run.state_type)
        deadline = time.monotonic() + _CANCEL_SECONDS
        while not (job := await self.get(job_id)).status.is_final and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
        return job

    async def logs(self, job_id: str, lines: int) -> Sequence[Log]:
        """Return the newest log lines, oldest first."""
        await self._read(job_id)
        run = self._settings.run_dir(job_id)
        logs = await asyncio.to_thread(lambda: [event for _, event in run.events() if isinstance(event, Log)])
        return logs[-lines:]

    async def follow(self, job_id: str, after: str | None = None) -> AsyncGenerator[tuple[str, Event]]:
        """
        Yield a job's events with their cursors: those so far, then each as it comes, and the final status last.

        ``after`` is the cursor of the last event seen. A Prefect server that is away delays the end, nothing else.
        """
        if not re.fullmatch("[0-9]{0,18}", after or ""):
            raise InvalidConfig("This is not a cursor of a job's events.", field="after", issue="Send one you received")
        job = await self.get(job_id)
        flow_run_id = flow_run_id_of(job_id)
        if int(after or 0) == 0:
            yield "0", Status(job_id=job_id, status=JobStatus.PENDING, phase=Phase.QUEUED, timestamp=job.created_at)
        async with self._feeds.following(self._settings.run_dir(job_id), int(after or 0)) as follower:
            while (run := self._last_state(flow_run_id)) is None or not status_of(run).is_final:
                for seq, event in await follower.read(wait=_STATE_SECONDS if run else _FIRST_STATE_SECONDS):
                    yield str(seq), event
            # The final state is older than what is read now: all events are there.
            async for seq, event in follower.read_rest():
                yield str(seq), event
        self._followed.pop(flow_run_id, None)
        ended, status = run.end_time or now(), status_of(run)
        yield str(follower.seq), Status(job_id=job_id, status=status, phase=Phase.DONE, timestamp=ended)

    async def ready(self) -> None:
        """Raise ``ResourceUnavailable`` unless Prefect answers and a worker polls."""
        try:
            async with answering(_READY_SECONDS):
                pool = await (await self._prefect()).read_work_pool(WORK_POOL)
        except ObjectNotFound as error:
            raise ResourceUnavailable("No worker has been there yet; start one, or wait for it.") from error
        if pool.status is not WorkPoolStatus.READY:
            raise ResourceUnavailable("No worker takes jobs at the moment; start one, or wait for it.")

    async def close(self) -> None:
        """Let go of connections."""
        await self._stack.aclose()
        self._client = None

    async def _prefect(self) -> PrefectClient:
        async with self._opening:
            if self._client is None:
                self._client = await self._stack.enter_async_context(get_client())
            return self._client

    async def _read(self, job_id: str) -> Run:
        if (run := await self._reads.get(flow_run_id_of(job_id))) is None:
            raise JobNotFound(f"There is no job {job_id!r}.", job_id=job_id)
        return run

    def _last_state(self, flow_run_id: UUID) -> Run | None:
        """Return a followed run as last read, without waiting; it is read twice a second for all followers together."""
        followed = self._followed.setdefault(flow_run_id, _Followed())
        if followed.reading is not None and followed.reading.done():
            with suppress(ResourceUnavailable):
                followed.last = followed.reading.result()
            followed.reading = None
        if followed.reading is None and time.monotonic() - followed.asked > _STATE_SECONDS:
            followed.asked = time.monotonic()
            followed.reading = asyncio.create_task(self._read(job_id_of(flow_run_id)))
        return followed.last


async def stop(client: PrefectClient, run_id: UUID, state: StateType | None, why: str = CANCELLED) -> None:
    """Cancel a run that has not ended, by the state it is in."""
    # A run that a worker has taken must be stopped by it; one that waits has nothing to stop.
    at_work = state in (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
    cancelled = Cancelling(message=why) if at_work else Cancelled(message=why)
    await client.set_flow_run_state(run_id, cancelled, force=True)


def _behind(cursor: str | None) -> UUID | None:
    """Read a list's cursor: the id of the last job of the page before."""
    try:
        return flow_run_id_of(cursor) if cursor else None
    except JobNotFound:
        raise InvalidConfig(
            "This is not a cursor of this list.", field="cursor", issue="Send one you received"
        ) from None


def tag_current_run(config: TrainingConfig) -> None:
    """Tag the flow run that this code runs in, however it was started."""
    if missing := set(tags_of(config)) - set(current_flow_run.tags):
        tags = [*current_flow_run.tags, *sorted(missing)]
        with get_client(sync_client=True) as client:
            insist(lambda: client.update_flow_run(UUID(current_flow_run.id), tags=tags))


def ended_already() -> State | None:
    """Return how the current flow run has ended before its first line; None where it is to be carried out."""
    with get_client(sync_client=True) as client:
        return end_in(insist(lambda: client.read_flow_run_states(UUID(current_flow_run.id))))


def end_in(states: Sequence[State]) -> State | None:
    """
    Return the end that a run's states tell of.

    It may have been cancelled after it was scheduled; or a process of it that was too slow to show that it lives, and
    was taken for dead, may have brought it to its end. What a person has tried again begins anew.
    """
    latest_first = sorted(states, key=lambda state: state.timestamp, reverse=True)
    since_scheduled = takewhile(lambda state: not state.is_scheduled(), latest_first)
    if any(state.is_cancelled() or state.is_cancelling() for state in since_scheduled):
        return Cancelled(message=CANCELLED)
    begun = takewhile(lambda state: not state.is_scheduled() or state.message == TAKEN_UP, latest_first)
    end = next((state for state in begun if state.is_completed() or state.is_failed()), None)
    if end is None:
        return None
    return Completed(message=ENDED) if end.is_completed() else Failed(message=ENDED)
