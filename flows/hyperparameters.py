"""
A sweep over hyperparameters: a job for each point, several at a time, the worst stopped early.

Not to be confused with ``flows/sweep.py``, which ends rented machines that nobody needs. Jobs are created with keys of
their own and carry the sweep's tag, so that a sweep whose process is killed goes on where it was.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.runtime import flow_run as current_flow_run
from prefect.states import Cancelled, Completed, Failed

from infra.flow_runs import CANCELLED
from infra.hyperparameters.steering import Steering
from infra.jobs.coordination import Coordinator, submitting
from infra.jobs.heartbeats import alone
from infra.settings import settings
from peft_studio.sweeps import SweepPlan

log = logging.getLogger(__name__)
LOOK_SECONDS = 1.0


async def cancel_jobs(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """Cancel the jobs of a sweep that was cancelled in Prefect's own UI."""
    async with steering(flow_run.id, SweepPlan.model_validate(flow_run.parameters["sweep"])) as sweep:
        await sweep.cancel()


@flow(name="hyperparameters", on_cancellation=[cancel_jobs])
async def hyperparameters(sweep: SweepPlan) -> State:
    """Run one sweep, from its first job to the end of its last."""
    coordinator = Coordinator.current(settings())
    with alone(coordinator.folder):
        async with steering(UUID(str(current_flow_run.id)), sweep) as steered:
            while True:
                try:
                    if coordinator.is_asked_to_cancel():
                        await steered.cancel()
                        return Cancelled(message=CANCELLED)
                    if await steered.step():
                        return outcome(await steered.jobs(), len(sweep.points))
                except httpx.HTTPError as error:
                    log.warning("Prefect does not answer as it should (%s); asking again", error)
                await asyncio.sleep(LOOK_SECONDS)


@asynccontextmanager
async def steering(run_id: UUID, sweep: SweepPlan) -> AsyncGenerator[Steering]:
    """Put together what steers a sweep."""
    async with get_client() as client, submitting(client, settings()) as submission:
        yield Steering(run_id, sweep, client, submission, settings())


def outcome(jobs: Mapping[int, FlowRun], points: int) -> State:
    """Say how a sweep has ended."""
    completed = sum(run.state_type is StateType.COMPLETED for run in jobs.values())
    message = f"{completed} of {points} points completed."
    return Completed(message=message) if completed else Failed(message=message)
