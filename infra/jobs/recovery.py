"""
No job is left behind: runs whose process is gone are found, and taken up again or failed with a reason.

Prefect hears of a crash only from the process that watched the run. When that one is gone too, or the whole
machine was, the run stays Running for ever. Every flow run therefore touches a heartbeat file in its run
directory; one that stopped doing so is dead, whoever else says otherwise.
"""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx
import psutil
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Cancelled, Failed, Suspended

from infra.credentials import CredentialsInPrefect
from infra.exports.conversions import Conversions
from infra.exports.runs import ExportRunsOnServer
from infra.flow_runs import CANCELLED, FLOW, TAKEN_UP
from infra.jobs.control import RETRIED
from infra.jobs.coordination import Coordinator
from infra.jobs.heartbeats import HEARTBEAT_SECONDS, last_beat
from infra.jobs.record import JobRecord
from infra.machines.jobs import JobMachines
from infra.platforms.connections import Platforms
from infra.serving.local import LocalDeployments
from infra.serving.records import PREFIX, DeploymentsInPrefect
from infra.settings import HYPERPARAMETERS, SCHEDULED, Settings
from peft_studio.errors import Conflict, NotFound, StudioError
from peft_studio.jobs import PREFIX as JOB_PREFIX
from peft_studio.jobs import JobStatus, Phase, job_id_of
from peft_studio.run_dir import Request

log = logging.getLogger(__name__)
CHECK_SECONDS = 2.0
SILENCE_SECONDS = 8 * HEARTBEAT_SECONDS
PENDING_SECONDS = 45.0  # a run that a worker took and never started
ENGINE = "prefect.engine"  # a word of every flow run's command
_LIVE = [StateType.CRASHED, StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]


async def keep(recoveries: Sequence["Recovery"]) -> None:
    """
    Look after all their runs, for ever; a server that is away is waited for.

    All are asked for together, and looked at kind by kind: what takes long for one holds no other up.
    """
    by_name = {name: recovery for recovery in recoveries for name in recovery.flows}
    by_flow: dict[UUID, Recovery] = {}
    at_work: dict[Recovery, asyncio.Task[None]] = {}
    wanted = FlowFilter(name=FlowFilterName(any_=list(by_name)))
    live = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_LIVE)))
    async with get_client() as client, asyncio.TaskGroup() as group:
        while True:
            found: dict[Recovery, list[FlowRun]] = defaultdict(list)
            with contextlib.suppress(httpx.HTTPError):
                for run in await client.read_flow_runs(flow_filter=wanted, flow_run_filter=live):
                    if run.flow_id not in by_flow:
                        by_flow[run.flow_id] = by_name[(await client.read_flow(run.flow_id)).name]
                    found[by_flow[run.flow_id]].append(run)
            for recovery, runs in found.items():
                if recovery not in at_work or at_work[recovery].done():
                    at_work[recovery] = group.create_task(recovery.check(client, runs))
            await asyncio.sleep(CHECK_SECONDS)


class Recovery:
    """Looks after the jobs' runs that ought to be at work."""

    flows: Sequence[str] = (FLOW,)

    def __init__(self, settings: Settings):
        self._settings = settings
        self._silent_since: dict[UUID, float] = {}

    async def check(self, client: PrefectClient, runs: Sequence[FlowRun]) -> None:
        """Look at runs that should be alive; what fails with one is tried again later, and harms no other."""
        for run in runs:
            try:
                if run.state is not None and self._is_dead(run, run.state):
                    await self._take_up(client, run, run.state)
            except (httpx.HTTPError, ObjectNotFound):
                pass  # the server is away, or somebody has deleted the run
            except Exception:
                log.exception("Flow run %s cannot be looked after", run.name)

    def _is_dead(self, run: FlowRun, state: State) -> bool:
        if state.is_crashed():
            return True
        if state.is_pending() and is_starting(run.infrastructure_pid):
            return False
        patience = PENDING_SECONDS if state.is_pending() else SILENCE_SECONDS
        beat = datetime.fromtimestamp(last_beat(self._folder(run)), UTC)
        if datetime.now(UTC) - max(beat, state.timestamp) < timedelta(seconds=patience):
            self._silent_since.pop(run.id, None)
            return False
        # Seen silent twice, some beats apart: a machine that slept must not take its own runs for dead.
        first = self._silent_since.setdefault(run.id, time.monotonic())
        return time.monotonic() - first > 2 * HEARTBEAT_SECONDS

    def _folder(self, run: FlowRun) -> Path:
        """Return the folder in which the run shows that it lives."""
        return self._settings.run_dir(job_id_of(run.id)).path

    async def _take_up(self, client: PrefectClient, run: FlowRun, state: State) -> None:
        """Schedule a dead run again, end one that was being ended, give up on one that died too often."""
        record = JobRecord(job_id_of(run.id), self._settings)
        self._silent_since.pop(run.id, None)
        deaths = 1 + times_taken_up(await client.read_flow_run_states(run.id))
        if (await client.read_flow_run(run.id)).state_type is not run.state_type:
            return  # somebody decided otherwise meanwhile
        # A run that is taken up again finds its machine at work; of any other nothing may be left.
        if state.is_cancelling():
            await self._let_go(client, record)
            await client.set_flow_run_state(run.id, Cancelled(message=CANCELLED), force=True)
        elif record.run.is_asked(Request.PAUSE):
            await self._release(record)
            record.run.enter(Phase.PAUSED, JobStatus.PENDING)
            await client.set_flow_run_state(run.id, Suspended(), force=True)
        elif deaths > self._settings.max_recoveries:
            reason = f"The job's process died {deaths} times; the last time: {state.message or 'without a word'}"
            await self._let_go(client, record)
            record.fail("The job's process died too often.", reason, "PROCESS_DIED")
            await client.set_flow_run_state(run.id, Failed(message=reason), force=True)
        else:
            record.say("The job's process is gone; the job is taken up again.", "WARNING")
            record.enter(Phase.RECOVERING)
            await client.set_flow_run_state(
                run.id, AwaitingRetry(message=TAKEN_UP, scheduled_time=datetime.now(UTC)), force=True
            )
        log.warning("Recovered %s from %s (death %d)", record.job_id, state.name, deaths)

    async def _let_go(self, client: PrefectClient, record: JobRecord) -> None:
        """End all that a job has begun elsewhere, as the hooks of a run do that ends by itself."""
        await self._release(record)
        with contextlib.suppress(NotFound, Conflict):  # not there, or not to be read
            await LocalDeployments(DeploymentsInPrefect(client)).stop(PREFIX + record.job_id.removeprefix(JOB_PREFIX))
        platforms = Platforms(CredentialsInPrefect(), self._settings)
        await Conversions(ExportRunsOnServer(), platforms, self._settings).cancel(record.job_id)

    async def _release(self, record: JobRecord) -> None:
        """Give the machines of a job back that has no process to do so; what fails here is left to the sweep."""
        try:
            await asyncio.to_thread(JobMachines(record, self._settings).release, "The job's process was gone.")
        except (StudioError, httpx.HTTPError):
            log.exception("The machines of %s are left to the sweep", record.job_id)


class CoordinatorRecovery(Recovery):
    """Looks after the runs that start jobs: they have no machine, and know from their jobs where they were."""

    flows = (HYPERPARAMETERS.partition("/")[0], SCHEDULED.partition("/")[0])

    def _folder(self, run: FlowRun) -> Path:
        return Coordinator(run.id, self._settings).folder

    async def _take_up(self, client: PrefectClient, run: FlowRun, state: State) -> None:
        """Schedule a dead run again, one that was being ended too: it is to cancel its jobs first."""
        self._silent_since.pop(run.id, None)
        deaths = 1 + times_taken_up(await client.read_flow_run_states(run.id))
        if (await client.read_flow_run(run.id)).state_type is not run.state_type:
            return  # somebody decided otherwise meanwhile
        if state.is_cancelling():
            Coordinator(run.id, self._settings).ask_to_cancel()
        elif deaths > self._settings.max_recoveries:
            reason = f"Its process died {deaths} times; its jobs go on. {state.message or ''}".strip()
            await client.set_flow_run_state(run.id, Failed(message=reason), force=True)
            return
        again = AwaitingRetry(message=TAKEN_UP, scheduled_time=datetime.now(UTC))
        await client.set_flow_run_state(run.id, again, force=True)
        log.warning("Recovered %s from %s (death %d)", run.name, state.name, deaths)


def is_starting(infrastructure_pid: str | None) -> bool:
    """Tell whether a run's process, by its number, is there on this machine: on a busy one it takes long to begin."""
    if not (infrastructure_pid or "").isdigit():  # what runs elsewhere is named in other ways
        return False
    try:
        return ENGINE in psutil.Process(int(infrastructure_pid or 0)).cmdline()
    except psutil.Error:
        return False


def times_taken_up(states: Sequence[State]) -> int:
    """Count how often a run was taken up since it began, or since a user had it tried again."""
    taken_up = 0
    for state in sorted(states, key=lambda state: state.timestamp):
        taken_up = 0 if state.message == RETRIED else taken_up + (state.message == TAKEN_UP)
    return taken_up
