"""Holds that nobody asked for through the API: what such a run may cost is held all the same, before it rents."""

import asyncio
from collections.abc import Sequence
from itertools import takewhile
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run as current_flow_run
from pydantic import BaseModel

from infra.budget_reads import ReadFromServer
from infra.budgets import HOLD_TAG, BudgetsInPrefect, wanted_by
from infra.flow_runs import TAKEN_UP
from infra.jobs.control import RETRIED
from infra.jobs.limits import wanted_again
from infra.planning.planner import rented_from
from infra.prefect_patience import answering
from infra.settings import Settings
from peft_studio.plan import Plan
from peft_studio.run_dir import RunDir

FILE = "hold.json"  # in the run directory, of a job that was tried again


class _Held(BaseModel):
    """The state by which somebody had an ended run begin again, once its budgets were asked."""

    turn: UUID


def hold(plan: Plan, run: RunDir, settings: Settings) -> None:
    """
    Hold what the current flow run may cost, unless that was done by the API, which is asked first where it can be.

    ``prefect deployment run``, ``prefect flow-run retry`` and Prefect's pages begin runs that no budget knows of.
    To be called before the plan is on record. Raises ``InsufficientCredits``; ``InvalidConfig`` where a budget is to
    pay for nobody knows how much.
    """
    if rented_from(plan.config) is not None:
        asyncio.run(_hold(UUID(str(current_flow_run.id)), plan, run, settings))


async def _hold(run_id: UUID, plan: Plan, run: RunDir, settings: Settings) -> None:
    async with answering(), get_client() as client:
        flow_run, turn = await client.read_flow_run(run_id), begun_again_by(await client.read_flow_run_states(run_id))
        held = run.read(FILE, _Held)
        if turn is not None and (held is None or held.turn != turn.id):
            wanted = wanted_again(plan, run)
        elif run.read("plan.json", Plan) is not None or any(tag.startswith(HOLD_TAG) for tag in flow_run.tags):
            return
        else:
            wanted = wanted_by(plan)
        budgets = BudgetsInPrefect(ReadFromServer(client), settings)
        async with budgets.readmitting(run.job_id, plan.config, wanted, flow_run.tags) as tags:
            if set(tags) != set(flow_run.tags):
                await client.update_flow_run(run_id, tags=tags)
        if turn is not None:
            run.write(FILE, _Held(turn=turn.id))


def begun_again_by(states: Sequence[State]) -> State | None:
    """Return the state by which somebody had a run begin again that had ended, other than through the API."""
    latest_first = sorted(states, key=lambda state: state.timestamp, reverse=True)
    since_its_end = [*takewhile(lambda state: not _is_end(state), latest_first)]
    begun = next((state for state in reversed(since_its_end) if state.is_scheduled()), None)
    has_ended = len(since_its_end) < len(states)
    return begun if has_ended and begun and begun.message not in (RETRIED, TAKEN_UP) else None


def _is_end(state: State) -> bool:
    """Whether a run held nothing from then on; one that has crashed goes on, and holds what it held."""
    return state.is_completed() or state.is_failed() or state.is_cancelled()
