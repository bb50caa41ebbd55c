"""Sweeps over hyperparameters: a job for each point, the worst stopped early, the best found."""

from typing import Annotated, Any

from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body, FromPath, QueryParameter, SkipValidation

from api import sweep_examples as examples
from api.dependencies import Caller
from api.idempotency import IdempotencyKey
from api.openapi import documented
from api.sweep_wire import SweepCancelled, SweepList
from api.wire import ExperimentComparison
from infra.hyperparameters.sweeps import Sweeps
from peft_studio.sweeps import Sweep, SweepConfig

TheSweeps = NamedDependency[SkipValidation[Sweeps]]


@post(
    "/sweeps",
    summary="Start a sweep",
    responses=documented(Sweep, examples.SWEEP_RUNNING, 402, 403, 404, 409, 413, 415, status=201),
)
async def create_sweep(
    data: Annotated[SweepConfig, Body(examples=[Example(value=examples.SWEEP)])],
    sweeps: TheSweeps,
    idempotency_key: IdempotencyKey,
    request: Request[Caller, Any, Any],
) -> Sweep:
    """
    Check every point of a sweep, and start it: a job for each point, `parallel` of them at a time.

    What varies is said by one of `grid`, `random` and `points`. With a `budget`, each point on a rented machine gets a
    `max_cost` (its own, or the high end of its estimate), and a job is only started where what the others have cost,
    and may yet cost, leaves room for it. With `early_stopping`, the worst points are cancelled at rungs of
    steps (ASHA).
    """
    return await sweeps.create(data, request.user.id, idempotency_key)


@get("/sweeps", summary="List sweeps", responses=documented(SweepList, examples.SWEEPS))
async def list_sweeps(
    sweeps: TheSweeps,
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="At most so many sweeps.")] = 20,
    cursor: Annotated[str | None, QueryParameter(description="The next_cursor of the page before.")] = None,
) -> SweepList:
    """Return sweeps, newest first."""
    page = await sweeps.page(limit, cursor)
    return SweepList(sweeps=page.sweeps, next_cursor=page.next_cursor)


@get("/sweeps/{sweep_id:str}", summary="Get a sweep", responses=documented(Sweep, examples.SWEEP_RUNNING, 404))
async def get_sweep(sweeps: TheSweeps, sweep_id: FromPath[str]) -> Sweep:
    """Return one sweep: its points with their jobs, the best so far, what it cost, what was stopped and why."""
    return await sweeps.get(sweep_id)


@get(
    "/sweeps/{sweep_id:str}/comparison",
    summary="Compare the points of a sweep",
    responses=documented(ExperimentComparison, examples.SWEEP_COMPARISON, 404, 409),
)
async def compare_sweep(sweeps: TheSweeps, sweep_id: FromPath[str]) -> ExperimentComparison:
    """Put all points that have jobs side by side, as `POST /experiments/compare` does, by the metric of the sweep."""
    return ExperimentComparison.of(await sweeps.compare(sweep_id))


@post(
    "/sweeps/{sweep_id:str}/cancel",
    status_code=200,
    summary="Cancel a sweep",
    responses=documented(SweepCancelled, examples.SWEEP_CANCELLED, 403, 404, 409),
)
async def cancel_sweep(sweeps: TheSweeps, sweep_id: FromPath[str]) -> SweepCancelled:
    """Cancel a sweep and its jobs, wait up to ten seconds for its end, and return its state then."""
    found = await sweeps.cancel(sweep_id)
    return SweepCancelled(sweep_id=found.sweep_id, status=found.status)


ROUTES = [create_sweep, list_sweeps, get_sweep, compare_sweep, cancel_sweep]
