"""
Budgets: kept as variables of Prefect's, written through its server, and held to.

A job on a rented machine holds what it may cost (``max_cost``, else the high estimate) from its submission to its end;
the hold is a tag of its flow run. What it has really cost is in the receipts of its machines.
"""

import asyncio
import fcntl
import hashlib
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from prefect.exceptions import ObjectNotFound

from infra.budget_reads import BudgetReads
from infra.jobs.limits import CAP_TAG
from infra.jobs.record import KEY_TAG
from infra.machines.receipts import cost_at_most
from infra.planning.planner import rented_from
from infra.settings import Settings
from peft_studio.budgets import Budget, BudgetState, Scope
from peft_studio.config import TrainingConfig
from peft_studio.errors import InsufficientCredits, InvalidConfig, ResourceUnavailable
from peft_studio.experiments import DEFAULT_PROJECT, project_of
from peft_studio.jobs import job_id_of
from peft_studio.machines import MachineReceipt
from peft_studio.plan import Plan

TAG = "peft-studio-budget"
HOLD_TAG = "hold:"
_PROJECT_TAG = "project:"
_VARIABLE = "budget_"
_PREFECT_SECONDS = 10.0


class Budgets(Protocol):
    """Where budgets are kept."""

    async def list(self) -> Sequence[BudgetState]:
        """Return all budgets, and what of each is gone this month."""
        ...

    async def put(self, budgets: Sequence[Budget]) -> None:
        """Have these budgets, and no others."""
        ...


@dataclass(frozen=True)
class Hold:
    """What one job that has not ended may cost in all, and who pays."""

    job_id: str
    amount: float
    key_id: str | None
    project: str

    def is_of(self, budget: Budget) -> bool:
        """Whether the budget pays for the job."""
        return budget.id == (self.key_id if budget.scope is Scope.KEY else self.project)


@dataclass(frozen=True)
class Month:
    """What a month's machines have cost so far, and what live jobs hold."""

    receipts: Sequence[MachineReceipt]
    holds: Sequence[Hold]
    at: datetime

    def state(self, budget: Budget) -> BudgetState:
        """Return what of a budget is spent, and what is held beyond what the same jobs have spent."""
        own = [receipt for receipt in self.receipts if _pays(budget, receipt)]
        held = 0.0
        for hold in self.holds:
            if hold.is_of(budget):
                spent = self._spent(receipt for receipt in own if receipt.job_id == hold.job_id)
                held += max(0.0, hold.amount - spent)
        return BudgetState(**budget.model_dump(), spent_usd=round(self._spent(own), 4), held_usd=round(held, 4))

    def without_hold_of(self, job_id: str) -> "Month":
        """Return the same with no hold of one job's, which asks for another."""
        return replace(self, holds=[hold for hold in self.holds if hold.job_id != job_id])

    def spent_by(self, job_id: str, budget: Budget) -> float:
        """Return what one job has cost of a budget already."""
        return self._spent(one for one in self.receipts if one.job_id == job_id and _pays(budget, one))

    def _spent(self, receipts: Iterable[MachineReceipt]) -> float:
        return sum(cost_at_most(one, self.at) for one in receipts)


class BudgetsInPrefect:
    """Budgets as Prefect has them; one instance serves a whole process."""

    def __init__(self, reads: BudgetReads, settings: Settings):
        self._reads = reads
        self._lock_file = settings.data_dir / "budgets.lock"
        self._one_by_one = asyncio.Lock()

    async def list(self) -> Sequence[BudgetState]:
        """Return all budgets, and what of each is gone this month."""
        budgets, month = await self._read(), await self._month()
        return [month.state(budget) for budget in budgets]

    async def put(self, budgets: Sequence[Budget]) -> None:
        """Have these budgets, of which no two are of the same key or project, and no others."""
        wanted = {(budget.scope, budget.id) for budget in budgets}
        stale = [budget for budget in await self._read() if (budget.scope, budget.id) not in wanted]
        async with _reachable(), get_client() as client:
            for budget in budgets:
                await _write(client, budget)
            for budget in stale:
                with suppress(ObjectNotFound):
                    await client.delete_variable_by_name(_name(budget))

    @asynccontextmanager
    async def admitting(
        self, plan: Plan, key_id: str | None, idempotency_key: str | None
    ) -> AsyncGenerator[Sequence[str]]:
        """
        Let a job's flow run be created, with the tags that are yielded, where its budgets pay for what it may cost.

        Two jobs that one budget pays for are admitted one after the other, over all processes of this machine: the
        second sees the first one's hold. Raises ``InsufficientCredits``; ``InvalidConfig`` where a budget is to pay
        for nobody knows how much. A submission that is repeated holds nothing more.
        """
        key = [KEY_TAG + key_id] if key_id else []
        if rented_from(plan.config) is None:
            yield key
            return
        wanted = wanted_by(plan)
        hold = Hold("", wanted or 0.0, key_id, project_of(plan.config))
        async with self._admitting(hold, wanted, idempotency_key) as tags:
            yield [*key, *tags]

    @asynccontextmanager
    async def readmitting(
        self, job_id: str, config: TrainingConfig, wanted: float | None, tags: Sequence[str]
    ) -> AsyncGenerator[Sequence[str]]:
        """Let a flow run that is there already go on, as ``admitting`` does; ``tags`` are those it has so far."""
        others = [tag for tag in tags if not tag.startswith((HOLD_TAG, CAP_TAG))]
        if rented_from(config) is None:
            yield others
            return
        key_id = next((tag.removeprefix(KEY_TAG) for tag in tags if tag.startswith(KEY_TAG)), None)
        async with self._admitting(Hold(job_id, wanted or 0.0, key_id, project_of(config)), wanted) as own:
            yield [*others, *own]

    @asynccontextmanager
    async def _admitting(
        self, hold: Hold, wanted: float | None, idempotency_key: str | None = None
    ) -> AsyncGenerator[Sequence[str]]:
        if not any(hold.is_of(budget) for budget in await self._read()):
            yield [] if wanted is None else [f"{HOLD_TAG}{wanted:.4f}"]
            return
        async with self._one_by_one, _locked(self._lock_file):
            if not await self._is_repeated(idempotency_key):
                await self._require(hold, wanted)
            yield [] if wanted is None else [f"{HOLD_TAG}{wanted:.4f}", f"{CAP_TAG}{wanted:.4f}"]

    async def _require(self, hold: Hold, wanted: float | None) -> None:
        month = (await self._month()).without_hold_of(hold.job_id)
        for budget in await self._read():
            if not hold.is_of(budget):
                continue
            whose = f"the {budget.scope} {budget.id!r}"
            if wanted is None:
                issue = f"nobody knows what the job will cost, and {whose} has a budget; say how much it may cost"
                raise InvalidConfig.of("max_cost", issue)
            state = month.state(budget)
            if state.spent_usd + state.held_usd + wanted - month.spent_by(hold.job_id, budget) > budget.monthly_usd:
                raise InsufficientCredits(
                    f"The budget of {whose} is ${budget.monthly_usd:.2f} a month: ${state.spent_usd:.2f} are spent, "
                    f"${state.held_usd:.2f} held by jobs that have not ended, and this job may cost ${wanted:.2f}. "
                    "Lower max_cost, wait for jobs to end, or raise the budget (PUT /budgets).",
                    **state.model_dump(mode="json"),
                    wanted_usd=round(wanted, 4),
                )

    async def _is_repeated(self, idempotency_key: str | None) -> bool:
        return idempotency_key is not None and await self._reads.is_repeated(idempotency_key)

    async def _read(self) -> Sequence[Budget]:
        budgets = [Budget.model_validate(value) for value in await self._reads.values(TAG)]
        return sorted(budgets, key=lambda budget: (budget.scope, budget.id))

    async def _month(self) -> Month:
        at = datetime.now(UTC)
        holds = [_hold(run_id, tags) for run_id, tags in await self._reads.live()]
        return Month(await self._reads.receipts(at), holds, at)


def wanted_by(plan: Plan) -> float | None:
    """Return what a job may cost, in US dollars: its limit, else the high estimate; None where nobody knows."""
    return plan.config.max_cost or (plan.estimate.cost.high if plan.estimate else None)


def _pays(budget: Budget, receipt: MachineReceipt) -> bool:
    whose = receipt.key_id if budget.scope is Scope.KEY else receipt.project or DEFAULT_PROJECT
    return budget.id == whose


def _hold(run_id: UUID, tags: Sequence[str]) -> Hold:
    def tagged(kind: str) -> str | None:
        return next((tag.removeprefix(kind) for tag in tags if tag.startswith(kind)), None)

    amount, project = float(tagged(HOLD_TAG) or 0), tagged(_PROJECT_TAG) or DEFAULT_PROJECT
    return Hold(job_id_of(run_id), amount, tagged(KEY_TAG), project)


def _name(budget: Budget) -> str:
    """Name a budget's variable: names of variables are of a-z, 0-9 and _ alone."""
    return _VARIABLE + hashlib.sha256(f"{budget.scope}\0{budget.id}".encode()).hexdigest()[:32]


async def _write(client: PrefectClient, budget: Budget) -> None:
    name, value = _name(budget), budget.model_dump(mode="json")
    try:
        await client.update_variable(VariableUpdate(name=name, value=value, tags=[TAG]))
    except (ObjectNotFound, httpx.HTTPStatusError) as error:
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code != 404:
            raise
        await client.create_variable(VariableCreate(name=name, value=value, tags=[TAG]))


@asynccontextmanager
async def _locked(path: Path) -> AsyncGenerator[None]:
    """Hold a file's lock, for which other processes wait too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        await asyncio.to_thread(fcntl.flock, file, fcntl.LOCK_EX)
        yield


@asynccontextmanager
async def _reachable() -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(_PREFECT_SECONDS):
            yield
    except (TimeoutError, httpx.HTTPError) as error:
        raise ResourceUnavailable("The Prefect server, which keeps budgets, does not answer; try again.") from error
