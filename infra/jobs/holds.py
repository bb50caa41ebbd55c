"""Holds of runs that nobody submitted through the API: what they may cost is held all the same, before they rent."""

import asyncio
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.runtime import flow_run as current_flow_run

from infra.budget_reads import ReadFromServer
from infra.budgets import HOLD_TAG, BudgetsInPrefect, wanted_by
from infra.planning.planner import rented_from
from infra.prefect_patience import answering
from infra.settings import Settings
from peft_studio.jobs import job_id_of
from peft_studio.plan import Plan


def hold(plan: Plan, settings: Settings) -> None:
    """
    Hold what the current flow run may cost, unless that was done when it was submitted.

    ``prefect deployment run`` and Prefect's pages create runs that no budget was asked about. Raises
    ``InsufficientCredits``; ``InvalidConfig`` where a budget is to pay for nobody knows how much.
    """
    if rented_from(plan.config) is not None:
        asyncio.run(_hold(UUID(str(current_flow_run.id)), plan, settings))


async def _hold(run_id: UUID, plan: Plan, settings: Settings) -> None:
    async with answering(), get_client() as client:
        run = await client.read_flow_run(run_id)
        if any(tag.startswith(HOLD_TAG) for tag in run.tags):
            return
        budgets = BudgetsInPrefect(ReadFromServer(client), settings)
        async with budgets.readmitting(job_id_of(run_id), plan.config, wanted_by(plan), run.tags) as tags:
            if set(tags) != set(run.tags):
                await client.update_flow_run(run_id, tags=tags)
