"""
Pausing, as the job's own process does it: stop where one can go on from, give everything back, and leave.

A pause is wanted as long as the run directory has the request, whatever becomes of processes and states meanwhile;
Prefect's own way, a flow run suspended in its UI, is heeded as well. The run then ends in Prefect's state Suspended.
Resuming schedules it again: every step may be run twice, and the trainer goes on from its last checkpoint.
"""

import time
from contextlib import suppress
from typing import NoReturn
from uuid import UUID, uuid4

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.exceptions import Pause
from prefect.flow_runs import suspend_flow_run
from prefect.runtime import flow_run as current_flow_run
from prefect.states import Cancelled

from infra.jobs.record import JobRecord
from peft_studio.jobs import JobStatus, Phase
from peft_studio.run_dir import Request

_AWAY_SECONDS = 1.0  # after which a Prefect server that is away is asked again


def pause_if_asked(record: JobRecord) -> None:
    """Leave the flow or the task that this is called in, if somebody wants the job to pause."""
    if is_pause_asked(record):
        # Prefect lets its own signal pass through tasks and flows, and takes it for no failure.
        raise Pause


def is_pause_asked(record: JobRecord) -> bool:
    """Tell whether somebody wants the job to pause, here or in Prefect's UI."""
    context = FlowRunContext.get()
    suspended = context is not None and context.flow_run_suspension_request.is_requested()
    return suspended or record.run.is_asked(Request.PAUSE)


def suspend(record: JobRecord, pause: Pause) -> NoReturn:
    """Have the flow run be Suspended, unless it is already, and leave it."""
    record.run.enter(Phase.PAUSED, JobStatus.PENDING)
    with suppress(httpx.HTTPError):
        _end_task_runs()
    if pause.state is not None:
        raise pause
    key = uuid4().hex  # another one each time, because Prefect lets one key suspend a run only once
    while True:
        try:
            suspend_flow_run(key=key)
        except httpx.TransportError:
            time.sleep(_AWAY_SECONDS)


def _end_task_runs() -> None:
    """Have Prefect's UI not show a step as running that was left in the middle."""
    flow_run = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(current_flow_run.id)]))
    running = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING])))
    with get_client(sync_client=True) as client:
        for task_run in client.read_task_runs(flow_run_filter=flow_run, task_run_filter=running):
            client.set_task_run_state(task_run.id, Cancelled(name="Paused"), force=True)
