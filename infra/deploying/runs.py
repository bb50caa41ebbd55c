"""The flow runs of deployments: the API's door to Prefect for them, and a double of it in memory."""

from dataclasses import dataclass, field
from typing import Protocol
from uuid import NAMESPACE_URL, UUID, uuid5

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate, DeploymentFlowRunCreate
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound

from infra.flow_runs import stop
from infra.jobs.submission import create_run, deployment_id
from infra.prefect_patience import answering
from infra.serving.records import Deployment
from infra.settings import DEPLOY_DEPLOYMENT, DEPLOYING_QUEUE


class DeployRuns(Protocol):
    """Where the runs are started and stopped."""

    async def create(self, deployment: Deployment) -> UUID:
        """Start a deployment's run, or return the one that was started before."""
        ...

    async def is_over(self, run_id: UUID) -> bool:
        """Tell whether nothing more is done by a run."""
        ...

    async def cancel(self, run_id: UUID) -> None:
        """Have a run stop; silent where it is over."""
        ...

    async def note_dismissed(self, deployment_id: str, text: str) -> None:
        """Keep it on record that a deployment was forgotten which may be there still."""
        ...


class DeployRunsInPrefect:
    """Flow runs of ``deploy``."""

    async def create(self, deployment: Deployment) -> UUID:
        """Start a flow run; raises ``ResourceUnavailable`` where no worker has registered the flow."""
        wanted = DeploymentFlowRunCreate(
            parameters={"deployment_id": deployment.deployment_id},
            tags=[f"adapter:{deployment.adapter_id}", f"platform:{deployment.platform}"],
            idempotency_key=_key(deployment),
            work_queue_name=DEPLOYING_QUEUE,
            enforce_parameter_schema=False,
        )
        async with answering(), get_client() as client:
            return (await create_run(client, await deployment_id(client, DEPLOY_DEPLOYMENT), wanted)).id

    async def is_over(self, run_id: UUID) -> bool:
        """Read the run's state; one that crashed is about to be taken up again."""
        async with answering(), get_client() as client:
            try:
                state = (await client.read_flow_run(run_id)).state
            except ObjectNotFound:
                return True
        return state is not None and state.is_final() and not state.is_crashed()

    async def cancel(self, run_id: UUID) -> None:
        """Cancel the run: one that a worker has taken is stopped by it; one that waits has nothing to stop."""
        async with answering(), get_client() as client:
            try:
                run = await client.read_flow_run(run_id)
            except ObjectNotFound:
                return
            if run.state is None or not run.state.is_final() or run.state.is_crashed():
                await stop(client, run_id, run.state_type)

    async def note_dismissed(self, deployment_id: str, text: str) -> None:
        """Keep it as an artifact, which outlives the deployment's record."""
        key = f"{deployment_id.replace('_', '-')}-dismissed"
        note = ArtifactCreate(key=key, type="markdown", description="A deployment nobody could take off", data=text)
        async with answering(), get_client() as client:
            await client.create_artifact(note)


@dataclass
class DeployRunsInMemory:
    """Runs that are only written down; whoever owns this makes them happen."""

    states: dict[UUID, StateType] = field(default_factory=dict[UUID, StateType])
    dismissed: dict[str, str] = field(default_factory=dict[str, str])

    async def create(self, deployment: Deployment) -> UUID:
        """Write one down."""
        run_id = uuid5(NAMESPACE_URL, _key(deployment))
        self.states.setdefault(run_id, StateType.SCHEDULED)
        return run_id

    async def is_over(self, run_id: UUID) -> bool:
        """Tell whether it was ended."""
        return self.states.get(run_id) not in (StateType.SCHEDULED, StateType.RUNNING)

    async def cancel(self, run_id: UUID) -> None:
        """Write down that it has stopped."""
        if not await self.is_over(run_id):
            self.states[run_id] = StateType.CANCELLED

    async def note_dismissed(self, deployment_id: str, text: str) -> None:
        """Write it down."""
        self.dismissed[deployment_id] = text


def _key(deployment: Deployment) -> str:
    """Return what makes a run the same: one that failed and is asked for again is another deployment."""
    return f"{deployment.deployment_id}:{deployment.created_at.isoformat()}"
