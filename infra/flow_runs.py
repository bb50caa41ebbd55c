"""
Our words in Prefect, and back: the API's only door to it.

A job is a flow run of ``finetune``; its id, configuration, state and result are Prefect's: changed through its server,
read from its database. What happens within a run is read from its run directory, where it is written first.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentFlowRunCreate
from prefect.client.schemas.objects import FlowRun, StateType, WorkPoolStatus
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run as current_flow_run
from prefect.states import Cancelled, Cancelling

from infra.budgets import BudgetsInPrefect
from infra.credentials import CredentialsInPrefect
from infra.dataset_uses import using
from infra.event_feed import EventFeeds
from infra.flow_run_jobs import PARENT, STATES, job_of, status_of, tags_of
from infra.job_locks import changing
from infra.job_reads import JobReads, Run, RunFilter
from infra.machines.offers import OfferBook
from infra.market import market
from infra.planning import make_plan, platforms_of
from infra.prefect_database import PrefectDatabase
from infra.prefect_patience import insist
from infra.settings import DEPLOYMENT, LOCAL_QUEUE, RENTED_QUEUE, WORK_POOL, Settings
from peft_studio.config import TrainingConfig
from peft_studio.errors import Conflict, InvalidConfig, JobNotFound, ResourceUnavailable
from peft_studio.events import Event, Log, Status, now
from peft_studio.jobs import Job, JobStatus, Phase, flow_run_id_of, job_id_of
from peft_studio.plan import Plan

CANCELLED = "Cancelled on request."
FLOW = DEPLOYMENT.partition("/")[0]
_FIRST_STATE_SECONDS = 0.05  # until a followed job's state is known for the first time
_STATE_SECONDS = 0.5  # how often Prefect is asked for a followed job's state, however many follow
_CANCEL_SECONDS = 10.0
_PREFECT_SECONDS = 20.0  # Prefect's client tries again by itself; a restarting server is back long before
_READY_SECONDS = 3.0
_SUBMISSIONS = 4  # at the same time; more would only wait in the Prefect server, until they were given up


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
    next_cursor: str | None


@dataclass
class _Followed:
    """What is known of a run that somebody follows."""

    last: Run | None = None
    asked: float = 0.0
    reading: asyncio.Task[Run] | None = None


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
    """Jobs, by way of Prefect's REST API and database; one instance serves a whole process."""

    def __init__(self, settings: Settings, database: PrefectDatabase, offers: OfferBook, budgets: BudgetsInPrefect):
        self._settings = settings
        self._offers = offers
        self._budgets = budgets
        self._reads = JobReads(database, FLOW)
        self._credentials = CredentialsInPrefect()
        self._stack = AsyncExitStack()
        self._client: PrefectClient | None = None
        self._opening = asyncio.Lock()
        self._deployment: UUID | None = None
        self._followed: dict[UUID, _Followed] = {}
        self._feeds = EventFeeds()
        self._submitting = asyncio.Semaphore(_SUBMISSIONS)

    async def submit(
        self,
        config: TrainingConfig,
        *,
        idempotency_key: str | None = None,
        parent_job_id: str | None = None,
        key_id: str | None = None,
    ) -> Submitted:
        """Validate a configuration and start a flow run for it; a repeated key gives the job of the first time."""
        connected = await self._credentials.connections() if platforms_of(config) else ()
        parent = [PARENT + parent_job_id] if parent_job_id else []
        with using(config.dataset_path):
            on_offer = await market(config, self._settings, self._offers)
            plan = await asyncio.to_thread(make_plan, config, self._settings, connected, on_offer)
            async with self._submitting, self._budgets.admitting(plan, key_id, idempotency_key) as tags, answering():
                flow_run = await self._create(config, idempotency_key, [*tags_of(config), *parent, *tags])
        job = job_of(Run.of(flow_run), self._settings)
        if job.config != config:
            raise Conflict(
                "This Idempotency-Key was used before, with another configuration.",
                field="Idempotency-Key",
                job_id=job.job_id,
            )
        return Submitted(job, plan)

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
            # A run that a worker has taken must be stopped by it; one that waits has nothing to stop.
            at_work = run.state_type in (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
            state = Cancelling(message=CANCELLED) if at_work else Cancelled(message=CANCELLED)
            await (await self._prefect()).set_flow_run_state(run.id, state, force=True)
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

    async def _create(self, config: TrainingConfig, idempotency_key: str | None, tags: Sequence[str]) -> FlowRun:
        wanted = DeploymentFlowRunCreate(
            parameters={"config": config.model_dump(mode="json", exclude_unset=True)},
            tags=list(tags),
            idempotency_key=idempotency_key,
            work_queue_name=LOCAL_QUEUE if config.provider == "local" else RENTED_QUEUE,
            # It was checked just now, and better: by its own model. A JSON schema costs the server 16 ms a job.
            enforce_parameter_schema=False,
        )
        response = await (await self._prefect()).request(
            "POST",
            "/deployments/{id}/create_flow_run",
            path_params={"id": await self._deployment_id()},
            json=wanted.model_dump(mode="json", exclude_unset=True),
        )
        return FlowRun.model_validate(response.json())

    async def _deployment_id(self) -> UUID:
        if self._deployment is None:
            try:
                self._deployment = (await (await self._prefect()).read_deployment_by_name(DEPLOYMENT)).id
            except ObjectNotFound:
                raise ResourceUnavailable(f"The deployment {DEPLOYMENT} is not registered; start a worker.") from None
        return self._deployment

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


def is_cancelled() -> bool:
    """Tell whether the current flow run was cancelled between its being scheduled and its first line."""
    with get_client(sync_client=True) as client:
        states = insist(lambda: client.read_flow_run_states(UUID(current_flow_run.id)))
    latest_first = sorted(states, key=lambda state: state.timestamp, reverse=True)
    since_scheduled = takewhile(lambda state: not state.is_scheduled(), latest_first)
    return any(state.is_cancelled() or state.is_cancelling() for state in since_scheduled)
