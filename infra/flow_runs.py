"""
Our words in Prefect, and back: the API's only door to it.

A job is a flow run of ``finetune``; its id, configuration, state and result are Prefect's. What happens
within a run is read from its run directory, which is where it is written first.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterType,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType, WorkPoolStatus
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run as current_flow_run
from prefect.states import Cancelled, Cancelling

from infra.flow_run_jobs import STATES, job_of, status_of, tags_of
from infra.planning import make_plan
from infra.settings import DEPLOYMENT, WORK_POOL, Settings
from peft_studio.config import TrainingConfig
from peft_studio.errors import Conflict, InvalidConfig, JobNotFound, ResourceUnavailable
from peft_studio.events import Event, Log, Status, now
from peft_studio.jobs import Job, JobResult, JobStatus, Phase, flow_run_id_of
from peft_studio.plan import Plan
from peft_studio.run_dir import EventReader

RESULT = "peft-studio.result"  # type of the artifact that holds a JobResult
CANCELLED = "Cancelled on request."
FLOW = DEPLOYMENT.partition("/")[0]
_EVENT_SECONDS = 0.1  # how often a follower looks for new events
_STATE_SECONDS = 0.5  # how often Prefect is asked for a followed job's state, however many follow
_CANCEL_SECONDS = 10.0
_PREFECT_SECONDS = 20.0  # Prefect's client tries again by itself; a restarting server is back long before
_READY_SECONDS = 3.0
_REMEMBERED_RESULTS = 10_000


@dataclass(frozen=True)
class Submitted:
    """A job that was accepted, and what validation found out about it."""

    job: Job
    plan: Plan


@dataclass(frozen=True)
class JobPage:
    """Some jobs, newest first, and how many there are in all."""

    jobs: list[Job]
    total: int


@dataclass
class _Followed:
    """What is known of a run that somebody follows."""

    last: FlowRun | None = None
    asked: float = 0.0
    reading: asyncio.Task[FlowRun] | None = None


@asynccontextmanager
async def answering(seconds: float = _PREFECT_SECONDS) -> AsyncGenerator[None]:
    """Turn a Prefect server that is away, slow or failing into ``ResourceUnavailable``."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except (httpx.TransportError, TimeoutError) as error:
        raise ResourceUnavailable("The Prefect server does not answer; try again in a moment.") from error
    except httpx.HTTPStatusError as error:
        if error.response.status_code < 500:
            raise
        raise ResourceUnavailable("The Prefect server is failing; see its log, then try again.") from error


class FlowRuns:
    """Jobs, by way of Prefect's REST API; one instance serves a whole process."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._stack = AsyncExitStack()
        self._client: PrefectClient | None = None
        self._opening = asyncio.Lock()
        self._deployment: UUID | None = None
        self._results: OrderedDict[UUID, JobResult] = OrderedDict()
        self._followed: dict[UUID, _Followed] = {}

    async def submit(self, config: TrainingConfig, *, idempotency_key: str | None = None) -> Submitted:
        """Validate a configuration and start a flow run for it; a repeated key gives the job of the first time."""
        plan = await asyncio.to_thread(make_plan, config, self._settings)
        async with answering():
            flow_run = await (await self._prefect()).create_flow_run_from_deployment(
                await self._deployment_id(),
                parameters={"config": config.model_dump(mode="json", exclude_unset=True)},
                tags=tags_of(config),
                idempotency_key=idempotency_key,
            )
        job = job_of(flow_run, None, self._settings)
        if job.config != config:
            raise Conflict(
                "This Idempotency-Key was used before, with another configuration.",
                field="Idempotency-Key",
                job_id=job.job_id,
            )
        return Submitted(job, plan)

    async def get(self, job_id: str) -> Job:
        """Return one job as it is now."""
        async with answering():
            flow_run = await self._read(job_id)
            results = await self._results_of([flow_run])
        return await asyncio.to_thread(job_of, flow_run, results.get(flow_run.id), self._settings)

    async def list(
        self, *, status: JobStatus | None = None, provider: str | None = None, limit: int = 20, offset: int = 0
    ) -> JobPage:
        """Return jobs, newest first."""
        flows = FlowFilter(name=FlowFilterName(any_=[FLOW]))
        runs = FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=STATES[status])) if status else None,
            tags=FlowRunFilterTags(all_=[f"provider:{provider}"]) if provider else None,
        )
        async with answering():
            client = await self._prefect()
            found, total = await asyncio.gather(
                client.read_flow_runs(
                    flow_filter=flows,
                    flow_run_filter=runs,
                    sort=FlowRunSort.EXPECTED_START_TIME_DESC,
                    limit=limit,
                    offset=offset,
                ),
                client.count_flow_runs(flow_filter=flows, flow_run_filter=runs),
            )
            results = await self._results_of(found)
        jobs = await asyncio.to_thread(lambda: [job_of(run, results.get(run.id), self._settings) for run in found])
        return JobPage(jobs, total)

    async def cancel(self, job_id: str) -> Job:
        """Stop a job; return it when it has ended, or as it is after ten seconds."""
        async with answering():
            flow_run = await self._read(job_id)
            status = status_of(flow_run)
            if status.is_final:
                raise Conflict(f"The job has already ended: it is {status}.", job_id=job_id, status=status)
            # A run that a worker has taken must be stopped by it; one that waits has nothing to stop.
            at_work = flow_run.state_type in (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
            state = Cancelling(message=CANCELLED) if at_work else Cancelled(message=CANCELLED)
            await (await self._prefect()).set_flow_run_state(flow_run.id, state, force=True)
        deadline = time.monotonic() + _CANCEL_SECONDS
        while not (job := await self.get(job_id)).status.is_final and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
        return job

    async def logs(self, job_id: str, lines: int) -> Sequence[Log]:
        """Return the newest log lines, oldest first."""
        async with answering():
            await self._read(job_id)
        run = self._settings.run_dir(job_id)
        logs = await asyncio.to_thread(lambda: [event for _, event in run.events() if isinstance(event, Log)])
        return logs[-lines:]

    async def follow(self, job_id: str, after: str | None = None) -> AsyncIterator[tuple[str, Event]]:
        """
        Yield a job's events with their cursors: those so far, then each as it comes, and the final status last.

        ``after`` is the cursor of the last event seen. A Prefect server that is away delays the end, nothing else.
        """
        if not (after or "0").isdecimal():
            raise InvalidConfig("This is not a cursor of a job's events.", field="after", issue="Send one you received")
        job = await self.get(job_id)
        flow_run_id = flow_run_id_of(job_id)
        reader = EventReader(self._settings.run_dir(job_id), seq := int(after or 0))
        if seq == 0:
            yield "0", Status(job_id=job_id, status=JobStatus.PENDING, phase=Phase.QUEUED, timestamp=job.created_at)
        while True:
            # The state is older than the events read next: once it is final, all events are there to be read.
            flow_run = self._last_state(flow_run_id)
            for seq, event in await asyncio.to_thread(lambda: list(reader.read())):
                yield str(seq), event
            if flow_run is not None and status_of(flow_run).is_final:
                break
            await asyncio.sleep(_EVENT_SECONDS)
        self._followed.pop(flow_run_id, None)
        ended = flow_run.end_time or now()
        status = status_of(flow_run)
        yield str(seq), Status(job_id=job_id, status=status, phase=Phase.DONE, timestamp=ended)

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

    async def _deployment_id(self) -> UUID:
        if self._deployment is None:
            try:
                self._deployment = (await (await self._prefect()).read_deployment_by_name(DEPLOYMENT)).id
            except ObjectNotFound:
                raise ResourceUnavailable(f"The deployment {DEPLOYMENT} is not registered; start a worker.") from None
        return self._deployment

    async def _read(self, job_id: str) -> FlowRun:
        try:
            return await (await self._prefect()).read_flow_run(flow_run_id_of(job_id))
        except ObjectNotFound:
            raise JobNotFound(f"There is no job {job_id!r}.", job_id=job_id) from None

    def _last_state(self, flow_run_id: UUID) -> FlowRun | None:
        """Return a followed run as last read, without waiting; it is read twice a second for all followers together."""
        followed = self._followed.setdefault(flow_run_id, _Followed())
        if followed.reading is not None and followed.reading.done():
            with suppress(ResourceUnavailable):
                followed.last = followed.reading.result()
            followed.reading = None
        if followed.reading is None and time.monotonic() - followed.asked > _STATE_SECONDS:
            followed.asked = time.monotonic()
            followed.reading = asyncio.create_task(self._read_state(flow_run_id))
        return followed.last

    async def _read_state(self, flow_run_id: UUID) -> FlowRun:
        async with answering():
            return await (await self._prefect()).read_flow_run(flow_run_id)

    async def _results_of(self, flow_runs: Sequence[FlowRun]) -> dict[UUID, JobResult]:
        """Read the results of the completed ones among ``flow_runs``; a result never changes, so it is kept."""
        completed = {run.id for run in flow_runs if run.state_type is StateType.COMPLETED}
        if missing := completed - self._results.keys():
            artifacts = await (await self._prefect()).read_artifacts(
                artifact_filter=ArtifactFilter(
                    type=ArtifactFilterType(any_=[RESULT]), flow_run_id=ArtifactFilterFlowRunId(any_=list(missing))
                )
            )
            for artifact in artifacts:
                if artifact.flow_run_id is not None:
                    self._results[artifact.flow_run_id] = JobResult.model_validate_json(str(artifact.data))
        while len(self._results) > _REMEMBERED_RESULTS:
            self._results.popitem(last=False)
        return {run: self._results[run] for run in completed if run in self._results}


def tag_current_run(config: TrainingConfig) -> None:
    """Tag the flow run that this code runs in, however it was started."""
    if missing := set(tags_of(config)) - set(current_flow_run.tags):
        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(current_flow_run.id), tags=[*current_flow_run.tags, *sorted(missing)])


def is_cancelled() -> bool:
    """Tell whether the current flow run was cancelled between a worker's taking it and its first line."""
    with get_client(sync_client=True) as client:
        states = client.read_flow_run_states(UUID(current_flow_run.id))
    return any(state.is_cancelled() or state.is_cancelling() for state in states)
