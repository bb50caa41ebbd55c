"""Schedules: a job configuration that becomes a job again and again."""

from typing import Annotated, Any

from litestar import Request, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body, FromPath, SkipValidation

from api import sweep_examples as examples
from api.dependencies import Caller
from api.idempotency import IdempotencyKey
from api.openapi import documented
from api.sweep_wire import ScheduleDeleted, ScheduleList
from infra.schedules.schedules import Schedules
from peft_studio.schedules import Schedule, ScheduleChanges, ScheduleConfig

TheSchedules = NamedDependency[SkipValidation[Schedules]]


@post(
    "/schedules",
    summary="Make a schedule",
    responses=documented(Schedule, examples.SCHEDULED, 402, 403, 404, 409, 413, 415, status=201),
)
async def create_schedule(
    data: Annotated[ScheduleConfig, Body(examples=[Example(value=examples.SCHEDULE)])],
    schedules: TheSchedules,
    idempotency_key: IdempotencyKey,
    request: Request[Caller, Any, Any],
) -> Schedule:
    """
    Check a configuration, and have it become a job whenever its time comes.

    It is checked again at each run, and paid for by the budgets of the API key that made, changed or resumed the
    schedule last; where that key is revoked, the schedule is paused instead. Each run is an ordinary job, with the
    schedule's id.
    """
    return await schedules.create(data, request.user.id, idempotency_key)


@get("/schedules", summary="List schedules", responses=documented(ScheduleList, examples.SCHEDULES))
async def list_schedules(schedules: TheSchedules) -> ScheduleList:
    """Return all schedules, oldest first."""
    return ScheduleList(schedules=await schedules.list())


@get(
    "/schedules/{schedule_id:str}",
    summary="Get a schedule",
    responses=documented(Schedule, examples.SCHEDULED, 404),
)
async def get_schedule(schedules: TheSchedules, schedule_id: FromPath[str]) -> Schedule:
    """Return one schedule: when it runs next, and what became of its last runs."""
    return await schedules.get(schedule_id)


@patch(
    "/schedules/{schedule_id:str}",
    summary="Change a schedule",
    responses=documented(Schedule, examples.SCHEDULED, 402, 403, 404, 409, 413, 415),
)
async def change_schedule(
    data: Annotated[ScheduleChanges, Body(examples=[Example(value=examples.SCHEDULE_CHANGES)])],
    schedules: TheSchedules,
    schedule_id: FromPath[str],
    request: Request[Caller, Any, Any],
) -> Schedule:
    """Change what is given, and leave the rest; the budget of whoever asks pays from then on."""
    return await schedules.change(schedule_id, data, request.user.id)


@post(
    "/schedules/{schedule_id:str}/pause",
    status_code=200,
    summary="Pause a schedule",
    responses=documented(Schedule, examples.SCHEDULED, 403, 404, 409),
)
async def pause_schedule(
    schedules: TheSchedules, schedule_id: FromPath[str], request: Request[Caller, Any, Any]
) -> Schedule:
    """Have a schedule not run until it is resumed; a job that it has started goes on."""
    return await schedules.change(schedule_id, ScheduleChanges(active=False), request.user.id)


@post(
    "/schedules/{schedule_id:str}/resume",
    status_code=200,
    summary="Resume a schedule",
    responses=documented(Schedule, examples.SCHEDULED, 402, 403, 404, 409),
)
async def resume_schedule(
    schedules: TheSchedules, schedule_id: FromPath[str], request: Request[Caller, Any, Any]
) -> Schedule:
    """Have a schedule run again; the budget of whoever asks pays from then on."""
    return await schedules.change(schedule_id, ScheduleChanges(active=True), request.user.id)


@delete(
    "/schedules/{schedule_id:str}",
    status_code=200,
    summary="Delete a schedule",
    responses=documented(ScheduleDeleted, examples.SCHEDULE_DELETED, 403, 404),
)
async def delete_schedule(schedules: TheSchedules, schedule_id: FromPath[str]) -> ScheduleDeleted:
    """Forget a schedule; jobs that it has started go on."""
    await schedules.delete(schedule_id)
    return ScheduleDeleted(schedule_id=schedule_id)


ROUTES = [
    create_schedule,
    list_schedules,
    get_schedule,
    change_schedule,
    pause_schedule,
    resume_schedule,
    delete_schedule,
]
