"""Flow runs that make something of adapters: the API's door to Prefect for them, and a double of it in memory."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentFlowRunCreate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterType,
    FlowRunFilter,
    FlowRunFilterIdempotencyKey,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import ArtifactSort
from prefect.exceptions import ObjectNotFound
from pydantic import BaseModel, ValidationError

from infra.flow_runs import stop
from infra.jobs.reads import RESULT, JobReads, Run, RunFilter
from infra.jobs.submission import create_run, deployment_id
from infra.prefect_database import PrefectDatabase
from infra.prefect_patience import answering
from peft_studio.errors import InvalidConfig
from peft_studio.events import now

log = logging.getLogger(__name__)
Step = TypeVar("Step", bound=BaseModel)
UNREADABLE = "What it has said last cannot be read: another version of the studio has written it."


class AdapterTask(Protocol):
    """What one flow run is to do with an adapter: its parameter."""

    @property
    def adapter_id(self) -> str:
        """The adapter's id."""
        ...

    @property
    def name(self) -> str:
        """What the run is called."""
        ...

    @property
    def labels(self) -> list[str]:
        """By what else it is found in Prefect."""
        ...

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """Write it as JSON has it."""
        ...


class Runs(Protocol):
    """Where flow runs are started and looked up that make something of adapters."""

    async def create(self, task: AdapterTask, key: str | None) -> Run:
        """Start one; a repeated key gives the one of the first time."""
        ...

    async def get(self, run_id: UUID) -> Run | None:
        """Return one, None where there is none."""
        ...

    async def page(
        self, adapter_id: str | None, states: Sequence[StateType] | None, limit: int, after: UUID | None
    ) -> Sequence[Run]:
        """Return some, newest first, those behind the one ``after``."""
        ...

    async def cancel(self, run: Run) -> None:
        """Have it stop."""
        ...

    async def delete(self, run_id: UUID) -> None:
        """Forget it."""
        ...


class RunsOnServer:
    """
    Flow runs of a deployment by way of Prefect's server alone: for other flow runs, which know of no database.

    ``queue`` is the work queue in which they wait.
    """

    def __init__(self, deployment: str, queue: str):
        self._deployment, self._queue = deployment, queue

    async def create(self, task: AdapterTask, key: str | None) -> Run:
        """Start a flow run; raises ``ResourceUnavailable`` where no worker has registered the flow."""
        wanted = DeploymentFlowRunCreate(
            parameters={"task": task.model_dump(mode="json")},
            tags=[tag_of(task.adapter_id), *task.labels],
            idempotency_key=key,
            work_queue_name=self._queue,
            enforce_parameter_schema=False,  # it is made of a model of its own, which has checked it
        )
        async with answering(), get_client() as client:
            return Run.of(await create_run(client, await deployment_id(client, self._deployment), wanted))

    async def get(self, run_id: UUID) -> Run | None:
        """Return one, None where there is none."""
        newest = ArtifactFilter(
            type=ArtifactFilterType(any_=[RESULT]), flow_run_id=ArtifactFilterFlowRunId(any_=[run_id])
        )
        async with answering(), get_client() as client:
            try:
                run = Run.of(await client.read_flow_run(run_id))
            except ObjectNotFound:
                return None
            found = await client.read_artifacts(artifact_filter=newest, sort=ArtifactSort.CREATED_DESC, limit=1)
        return replace(run, result=str(found[0].data)) if found else run

    async def with_key(self, key: str) -> Run | None:
        """Return the one that was started with a key, None where there is none."""
        wanted = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[key]))
        async with answering(), get_client() as client:
            found = await client.read_flow_runs(flow_run_filter=wanted, limit=1)
        return Run.of(found[0]) if found else None

    async def cancel(self, run: Run) -> None:
        """Stop a run: one that a worker has taken is stopped by it; one that waits has nothing to stop."""
        async with answering(), get_client() as client:
            await stop(client, run.id, run.state_type)


class RunsInPrefect(RunsOnServer):
    """The same, read from Prefect's database."""

    def __init__(self, database: PrefectDatabase, deployment: str, queue: str):
        super().__init__(deployment, queue)
        self._reads = JobReads(database, deployment.partition("/")[0])

    async def get(self, run_id: UUID) -> Run | None:
        """Return one, None where there is none."""
        return await self._reads.get(run_id)

    async def page(
        self, adapter_id: str | None, states: Sequence[StateType] | None, limit: int, after: UUID | None
    ) -> Sequence[Run]:
        """Return some, newest first, those behind the one ``after``; raises ``InvalidConfig`` where that is none."""
        if adapter_id is not None and "\0" in adapter_id:
            return []  # PostgreSQL knows no such character, so nothing is called so
        wanted = RunFilter(states, tag=tag_of(adapter_id) if adapter_id is not None else None)
        return await self._reads.page(wanted, limit=limit, after=after)

    async def delete(self, run_id: UUID) -> None:
        """Delete the flow run, and with it what is known of it."""
        async with answering(), get_client() as client:
            with suppress(ObjectNotFound):
                await client.delete_flow_run(run_id)


@dataclass
class RunsInMemory:
    """Runs that are only written down; whoever owns this makes them happen."""

    runs: dict[UUID, Run] = field(default_factory=dict[UUID, Run])

    async def create(self, task: AdapterTask, key: str | None) -> Run:
        """Write one down."""
        run_id = uuid5(NAMESPACE_URL, key) if key else uuid4()
        run = Run(
            id=run_id,
            name=task.name,
            parameters={"task": task.model_dump(mode="json")},
            tags=[tag_of(task.adapter_id)],
            state_type=StateType.SCHEDULED,
            created=now(),
        )
        return self.runs.setdefault(run_id, run)

    async def get(self, run_id: UUID) -> Run | None:
        """Return one, None where there is none."""
        await asyncio.sleep(0)
        return self.runs.get(run_id)

    async def with_key(self, key: str) -> Run | None:
        """Return the one that was started with a key, None where there is none."""
        return await self.get(uuid5(NAMESPACE_URL, key))

    async def page(
        self, adapter_id: str | None, states: Sequence[StateType] | None, limit: int, after: UUID | None
    ) -> Sequence[Run]:
        """Return some, newest first."""
        if after is not None and after not in self.runs:
            raise InvalidConfig("This is not a cursor of this list.", field="cursor", issue="Send one you received")
        newest = list(reversed(self.runs.values()))
        begin = [run.id for run in newest].index(after) + 1 if after else 0
        return [
            run
            for run in newest[begin:]
            if (adapter_id is None or tag_of(adapter_id) in run.tags) and (states is None or run.state_type in states)
        ][:limit]

    async def cancel(self, run: Run) -> None:
        """Write down that it has stopped."""
        self.runs[run.id] = replace(run, state_type=StateType.CANCELLED, end_time=now())

    async def delete(self, run_id: UUID) -> None:
        """Forget it."""
        self.runs.pop(run_id, None)


def tag_of(adapter_id: str) -> str:
    """Return the tag by which the runs of an adapter are found."""
    return f"adapter:{adapter_id}"


def step_of(run: Run, kind: type[Step]) -> Step | None:
    """Return what a run has said last; None where it has said nothing yet, or nothing that can be read."""
    if not run.result:
        return None
    try:
        return kind.model_validate_json(run.result)
    except ValidationError:
        log.error("What the flow run %s (%s) has said last cannot be read.", run.name, run.id)
        return None
