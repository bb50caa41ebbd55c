"""Submitting jobs: a configuration that is checked, paid for, and made a flow run."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentFlowRunCreate
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound

from infra.budgets import BudgetsInPrefect
from infra.credentials import CredentialsInPrefect
from infra.datasets.uses import using
from infra.jobs.flow_run_jobs import job_of, tags_of
from infra.jobs.reads import Run
from infra.machines.offers import OfferBook
from infra.planning.market import market
from infra.planning.planner import make_plan, platforms_of
from infra.prefect_patience import answering
from infra.settings import DEPLOYMENT, LOCAL_QUEUE, RENTED_QUEUE, Settings
from peft_studio.config import TrainingConfig
from peft_studio.errors import Conflict, ResourceUnavailable
from peft_studio.jobs import Job
from peft_studio.plan import Plan

_AT_ONCE = 4  # more would only wait in the Prefect server, until they were given up


@dataclass(frozen=True)
class Submitted:
    """A job that was accepted, and what validation found out about it."""

    job: Job
    plan: Plan


class JobSubmission:
    """Makes jobs of configurations, for the API and for flows that start jobs; ``prefect`` returns an open client."""

    def __init__(
        self,
        settings: Settings,
        offers: OfferBook,
        budgets: BudgetsInPrefect,
        prefect: Callable[[], Awaitable[PrefectClient]],
    ):
        self._settings = settings
        self._offers = offers
        self._budgets = budgets
        self._prefect = prefect
        self._credentials = CredentialsInPrefect()
        self._deployment: UUID | None = None
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def submit(
        self,
        config: TrainingConfig,
        *,
        idempotency_key: str | None = None,
        key_id: str | None = None,
        tags: Sequence[str] = (),
    ) -> Submitted:
        """
        Validate a configuration and start a flow run for it; a repeated key gives the job of the first time.

        ``tags`` say where the job comes from, besides those that every job has.
        """
        with using(config.dataset_path):
            plan = await self.plan(config)
            async with self._turns, self._budgets.admitting(plan, key_id, idempotency_key) as paid, answering():
                flow_run = await self._create(config, idempotency_key, [*tags_of(config), *tags, *paid])
        job = job_of(Run.of(flow_run), self._settings)
        if job.config != config:
            raise Conflict(
                "This Idempotency-Key was used before, with another configuration.",
                field="Idempotency-Key",
                job_id=job.job_id,
            )
        return Submitted(job, plan)

    async def plan(self, config: TrainingConfig) -> Plan:
        """Validate a configuration; creates nothing."""
        connected = await self._credentials.connections() if platforms_of(config) else ()
        on_offer = await market(config, self._settings, self._offers)
        return await asyncio.to_thread(make_plan, config, self._settings, connected, on_offer)

    async def _create(self, config: TrainingConfig, idempotency_key: str | None, tags: Sequence[str]) -> FlowRun:
        wanted = DeploymentFlowRunCreate(
            parameters={"config": config.model_dump(mode="json", exclude_unset=True)},
            tags=list(tags),
            idempotency_key=idempotency_key,
            work_queue_name=LOCAL_QUEUE if config.provider == "local" else RENTED_QUEUE,
            # It was checked just now, and better: by its own model. A JSON schema costs the server 16 ms a job.
            enforce_parameter_schema=False,
        )
        if self._deployment is None:
            self._deployment = await deployment_id(await self._prefect(), DEPLOYMENT)
        return await create_run(await self._prefect(), self._deployment, wanted)


async def deployment_id(client: PrefectClient, name: str) -> UUID:
    """Return a deployment's id; raises ``ResourceUnavailable`` while no worker has registered it."""
    try:
        return (await client.read_deployment_by_name(name)).id
    except ObjectNotFound:
        raise ResourceUnavailable(f"The deployment {name} is not registered; start a worker.") from None


async def create_run(client: PrefectClient, deployment: UUID, wanted: DeploymentFlowRunCreate) -> FlowRun:
    """Create a flow run of a deployment, or return the one that has its idempotency key."""
    response = await client.request(
        "POST",
        "/deployments/{id}/create_flow_run",
        path_params={"id": deployment},
        json=wanted.model_dump(mode="json", exclude_unset=True),
    )
    return FlowRun.model_validate(response.json())
