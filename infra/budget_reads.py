"""
What budgets are held to by: budgets, holds and receipts, as Prefect has them.

The API reads Prefect's database. A flow run's process sees no database and asks Prefect's server for the same.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    ArtifactCollectionFilter,
    ArtifactCollectionFilterType,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterIdempotencyKey,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType, Variable
from prefect.client.schemas.sorting import ArtifactCollectionSort
from pydantic_core import from_json

from infra.machines.reads import MACHINE, MachineReads
from infra.prefect_database import PrefectDatabase
from infra.settings import DEPLOYMENT
from peft_studio.machines import MachineReceipt

_FLOW = DEPLOYMENT.partition("/")[0]
_ENDED = [StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED]
_PAGE = 200
_LIVE = """SELECT r.id, r.tags::text AS tags FROM flow_run r
    WHERE r.flow_id = (SELECT id FROM flow WHERE name = $1) AND r.state_type NOT IN ('COMPLETED', 'FAILED', 'CANCELLED')
    AND r.tags @? '$[*] ? (@ starts with "hold:")'"""
_REPEATED = """SELECT 1 FROM flow_run r
    WHERE r.flow_id = (SELECT id FROM flow WHERE name = $1) AND r.idempotency_key = $2"""


class BudgetReads(Protocol):
    """Where it is read what budgets there are, and what counts against them."""

    async def values(self, tag: str) -> Sequence[Any]:
        """Return the values of all variables with a tag."""
        ...

    async def live(self) -> Sequence[tuple[UUID, Sequence[str]]]:
        """Return the jobs' flow runs that have not ended, with their tags; those that hold nothing may be left out."""
        ...

    async def is_repeated(self, idempotency_key: str) -> bool:
        """Whether a job was created with this key already."""
        ...

    async def receipts(self, month: datetime) -> Sequence[MachineReceipt]:
        """Return the machines that were rented in a time's calendar month (UTC)."""
        ...


class ReadFromDatabase:
    """For the API."""

    def __init__(self, database: PrefectDatabase):
        self._database = database
        self._machines = MachineReads(database)

    async def values(self, tag: str) -> Sequence[Any]:
        """Return the values of all variables with a tag."""
        return [*(await self._database.variables(tag)).values()]

    async def live(self) -> Sequence[tuple[UUID, Sequence[str]]]:
        """Return the jobs that hold something."""
        rows = await self._database.fetch(_LIVE, _FLOW)
        return [(row["id"], from_json(row["tags"])) for row in rows]

    async def is_repeated(self, idempotency_key: str) -> bool:
        """Whether a job was created with this key already."""
        return bool(await self._database.fetch(_REPEATED, _FLOW, idempotency_key))

    async def receipts(self, month: datetime) -> Sequence[MachineReceipt]:
        """Return the machines that were rented in a time's calendar month (UTC)."""
        return await self._machines.of_month(month)


class ReadFromServer:
    """For flow runs; the client is theirs to open and to close."""

    def __init__(self, client: PrefectClient):
        self._client = client

    async def values(self, tag: str) -> Sequence[Any]:
        """Return the values of all variables with a tag."""
        found: list[Variable] = []
        while True:
            query = {"variables": {"tags": {"all_": [tag]}}, "sort": "NAME_ASC", "limit": _PAGE, "offset": len(found)}
            page = (await self._client.request("POST", "/variables/filter", json=query)).json()
            found += Variable.model_validate_list(page)
            if len(page) < _PAGE:
                return [variable.value for variable in found]

    async def live(self) -> Sequence[tuple[UUID, Sequence[str]]]:
        """Return all jobs that have not ended."""
        live = FlowRunFilterState(type=FlowRunFilterStateType(not_any_=_ENDED))
        runs = await flow_runs(self._client, _FLOW, FlowRunFilter(state=live))
        return [(run.id, run.tags) for run in runs]

    async def is_repeated(self, idempotency_key: str) -> bool:
        """Whether a job was created with this key already."""
        key = FlowRunFilterIdempotencyKey(any_=[idempotency_key])
        return bool(await flow_runs(self._client, _FLOW, FlowRunFilter(idempotency_key=key)))

    async def receipts(self, month: datetime) -> Sequence[MachineReceipt]:
        """Return the machines that were rented in a time's calendar month (UTC)."""
        begin = month.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        end = begin.replace(year=begin.year + begin.month // 12, month=begin.month % 12 + 1)
        kind = ArtifactCollectionFilter(type=ArtifactCollectionFilterType(any_=[MACHINE]))
        found: list[MachineReceipt] = []
        offset = 0
        while True:
            page = await self._client.read_latest_artifacts(
                artifact_filter=kind, sort=ArtifactCollectionSort.UPDATED_DESC, limit=_PAGE, offset=offset
            )
            receipts = [MachineReceipt.model_validate(artifact.data) for artifact in page]
            found += [receipt for receipt in receipts if begin <= receipt.intended_at < end]
            # Whatever was rented this month was changed since it began, and what changed last comes first.
            if len(page) < _PAGE or (page[-1].updated is not None and page[-1].updated < begin):
                return found
            offset += len(page)


async def flow_runs(client: PrefectClient, flow: str, wanted: FlowRunFilter) -> list[FlowRun]:
    """Return all runs of a flow that a filter lets through, page by page."""
    found: list[FlowRun] = []
    while True:
        page = await client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
            flow_run_filter=wanted,
            limit=_PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < _PAGE:
            return found
