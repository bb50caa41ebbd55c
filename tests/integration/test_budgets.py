"""Budgets held to: what is spent and held, read from Prefect's own tables, and who is refused because of it."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import pytest
from prefect.client.schemas.objects import StateType

from infra.budget_reads import ReadFromDatabase
from infra.budgets import TAG, BudgetsInPrefect
from infra.machines.reads import KEY, MACHINE
from infra.prefect_database import PrefectDatabase
from infra.settings import Settings
from peft_studio.budgets import BudgetState
from peft_studio.errors import InsufficientCredits, InvalidConfig
from peft_studio.jobs import job_id_of
from peft_studio.machines import MachineReceipt, MachineStatus
from peft_studio.plan import Estimate, Plan, Range
from tests.integration.prefect_tables import Tables, prefect_tables
from tests.rented_jobs import DATA, LLAMA, config

FLOW = "finetune"
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def tables() -> Iterator[Tables]:
    with TemporaryDirectory(prefix="pg-") as folder, prefect_tables(Path(folder)) as started:
        yield started


@pytest.fixture(autouse=True)
def _empty(tables: Tables) -> None:
    tables.run("TRUNCATE artifact, artifact_collection, flow_run, variable")


def budget(tables: Tables, scope: str, who: str, amount: float) -> None:
    tables.variable(f"budget_{scope}_{who}", {"scope": scope, "id": who, "monthly_usd": amount}, TAG)


def machine(tables: Tables, run: UUID, cost: float | None, **changes: Any) -> None:
    given = {"resource_id": "gpu-rtx4090", "provider": "runpod", "attempt": 1, "offered_rate": 3.6, "key_id": "alice"}
    more = {"billing_increment": 1, "status": MachineStatus.GONE, "intended_at": NOW, "project": "support"}
    name = KEY + run.hex
    receipt = MachineReceipt.model_validate(
        given | more | {"name": name, "job_id": job_id_of(run), "cost": cost} | changes
    )
    data = receipt.model_dump(mode="json")
    tables.artifact(name, MACHINE, data, flow_run_id=run, created=receipt.intended_at)


def plan(cost: float | None = None, **changes: Any) -> Plan:
    """A job that may cost so much at most."""
    money = None if cost is None else Estimate(cost=_about(cost), minutes=_about(cost), measured_jobs=0)
    return Plan(
        config=config(**{"provider": "runpod", "project_name": "support"} | changes),
        model=LLAMA,
        dataset=DATA,
        cache_key="k",
        total_steps=1,
        estimated_cost=None,
        estimated_duration_minutes=None,
        estimate=money,
    )


def _about(high: float) -> Range:
    return Range(low=high / 4, expected=high / 2, high=high)


def admit(
    tables: Tables, folder: Path, wanted: Plan, key_id: str | None = "alice", repeat: str | None = None
) -> list[str]:
    """Return the tags a job gets."""

    async def admitted() -> list[str]:
        async with AsyncExitStack() as stack:
            database = PrefectDatabase(tables.url)
            stack.push_async_callback(database.close)
            budgets = BudgetsInPrefect(ReadFromDatabase(database), Settings(data_dir=folder))
            return [*await stack.enter_async_context(budgets.admitting(wanted, key_id, repeat))]

    return asyncio.run(admitted())


def states(tables: Tables, folder: Path) -> dict[str, BudgetState]:
    async def read() -> dict[str, BudgetState]:
        database = PrefectDatabase(tables.url)
        try:
            return {
                one.id: one
                for one in await BudgetsInPrefect(ReadFromDatabase(database), Settings(data_dir=folder)).list()
            }
        finally:
            await database.close()

    return asyncio.run(read())


def test_what_ended_jobs_cost_is_spent_and_what_live_ones_may_cost_is_held(tables: Tables, tmp_path: Path) -> None:
    budget(tables, "key", "alice", 50)
    budget(tables, "project", "support", 100)
    budget(tables, "project", "other", 10)
    tags = ["project:support", "key:alice", "hold:5.0000"]
    machine(tables, tables.flow_run(FLOW, StateType.COMPLETED, tags), 1.5)
    machine(tables, tables.flow_run(FLOW, StateType.FAILED, tags), 2.0)
    machine(tables, tables.flow_run(FLOW, StateType.RUNNING, tags), 3.0)  # of the five it holds two are left
    tables.flow_run(FLOW, StateType.PENDING, ["project:support", "key:bob", "hold:7.0000"])
    tables.flow_run(FLOW, StateType.CRASHED, ["project:support", "key:alice", "hold:0.5000"])  # is taken up again
    found = states(tables, tmp_path)
    assert (found["alice"].spent_usd, found["alice"].held_usd) == (6.5, 2.5)
    assert (found["support"].spent_usd, found["support"].held_usd) == (6.5, 9.5)
    assert (found["other"].spent_usd, found["other"].held_usd) == (0, 0)


def test_a_machine_without_a_bill_yet_counts_by_its_rate_and_one_that_never_was_by_nothing(
    tables: Tables, tmp_path: Path
) -> None:
    budget(tables, "key", "alice", 50)
    ended = {"rented_at": NOW, "gone_at": NOW + timedelta(seconds=1000)}
    machine(tables, tables.flow_run(FLOW, StateType.FAILED), None, **ended)
    machine(tables, tables.flow_run(FLOW, StateType.FAILED), None, status=MachineStatus.NEVER)
    assert states(tables, tmp_path)["alice"].spent_usd == pytest.approx(1.0)


def test_a_machine_of_which_nobody_knows_whether_it_is_there_does_not_count_as_nothing(
    tables: Tables, tmp_path: Path
) -> None:
    budget(tables, "key", "alice", 50)
    machine(tables, tables.flow_run(FLOW, StateType.CANCELLED), None, status=MachineStatus.INTENDED)
    assert states(tables, tmp_path)["alice"].spent_usd >= 0.001  # a second of it, at least


def test_last_month_is_paid(tables: Tables, tmp_path: Path) -> None:
    budget(tables, "key", "alice", 50)
    before = NOW.replace(day=1, hour=0, minute=0, second=0, microsecond=0) - timedelta(seconds=1)
    machine(tables, tables.flow_run(FLOW, StateType.COMPLETED), 40.0, intended_at=before)
    assert states(tables, tmp_path)["alice"].spent_usd == 0


def test_a_job_holds_its_limit_or_else_the_high_estimate(tables: Tables, tmp_path: Path) -> None:
    budget(tables, "key", "alice", 50)
    assert admit(tables, tmp_path, plan(8.0)) == ["key:alice", "hold:8.0000", "cap:8.0000"]
    assert admit(tables, tmp_path, plan(8.0, max_cost=5)) == ["key:alice", "hold:5.0000", "cap:5.0000"]
    assert admit(tables, tmp_path, plan(8.0), key_id=None) == ["hold:8.0000"]
    assert admit(tables, tmp_path, plan(None), key_id="bob") == ["key:bob"]  # nobody's budget, so nobody asks
    assert admit(tables, tmp_path, plan(1000.0, provider="local")) == ["key:alice"]


@pytest.mark.parametrize(("scope", "who"), [("key", "alice"), ("project", "support")])
def test_a_hold_that_does_not_fit_is_refused_with_the_figures(
    tables: Tables, tmp_path: Path, scope: str, who: str
) -> None:
    budget(tables, scope, who, 10)
    machine(tables, tables.flow_run(FLOW, StateType.COMPLETED), 2.0)
    tables.flow_run(FLOW, StateType.RUNNING, ["project:support", "key:alice", "hold:3.0000"])
    assert admit(tables, tmp_path, plan(5.0))
    with pytest.raises(InsufficientCredits) as caught:
        admit(tables, tmp_path, plan(5.01))
    details = caught.value.details
    assert (details["scope"], details["id"], details["monthly_usd"]) == (scope, who, 10)
    assert (details["spent_usd"], details["held_usd"], details["wanted_usd"]) == (2.0, 3.0, 5.01)
    assert who in caught.value.message
    assert admit(tables, tmp_path, plan(5.01, max_cost=4))


def test_nobody_knows_how_much_is_no_answer_to_a_budget(tables: Tables, tmp_path: Path) -> None:
    budget(tables, "project", "support", 10)
    with pytest.raises(InvalidConfig) as caught:
        admit(tables, tmp_path, plan(None))
    assert caught.value.details["field"] == "max_cost"
    assert admit(tables, tmp_path, plan(None, max_cost=5))


def test_a_submission_that_is_repeated_holds_nothing_more(tables: Tables, tmp_path: Path) -> None:
    budget(tables, "key", "alice", 10)
    tags = ["key:alice", "hold:8.0000", "cap:8.0000"]
    tables.flow_run(FLOW, StateType.RUNNING, tags, idempotency_key="again")
    assert admit(tables, tmp_path, plan(8.0), repeat="again") == tags
    with pytest.raises(InsufficientCredits):
        admit(tables, tmp_path, plan(8.0), repeat="another")


def test_of_two_submissions_at_once_that_do_not_both_fit_one_is_refused(tables: Tables, tmp_path: Path) -> None:
    budget(tables, "key", "alice", 10)

    async def submit(budgets: BudgetsInPrefect) -> bool:
        try:
            async with budgets.admitting(plan(6.0), "alice", None) as tags:
                await asyncio.to_thread(tables.flow_run, FLOW, StateType.SCHEDULED, tags)
        except InsufficientCredits:
            return False
        return True

    async def race() -> list[bool]:
        database = PrefectDatabase(tables.url)
        settings = Settings(data_dir=tmp_path)
        several = [
            BudgetsInPrefect(ReadFromDatabase(database), settings),
            BudgetsInPrefect(ReadFromDatabase(database), settings),
        ]  # two processes, as it were
        try:
            return await asyncio.gather(*(submit(budgets) for budgets in 2 * several))
        finally:
            await database.close()

    assert sorted(asyncio.run(race())) == [False, False, False, True]


def readmit(tables: Tables, folder: Path, run: UUID, wanted: float, tags: list[str]) -> list[str]:
    """Return the tags that an ended job gets when it is tried again."""

    async def admitted() -> list[str]:
        async with AsyncExitStack() as stack:
            database = PrefectDatabase(tables.url)
            stack.push_async_callback(database.close)
            budgets = BudgetsInPrefect(ReadFromDatabase(database), Settings(data_dir=folder))
            again = budgets.readmitting(job_id_of(run), plan().config, wanted, tags)
            return [*await stack.enter_async_context(again)]

    return asyncio.run(admitted())


def test_a_job_that_is_tried_again_holds_what_it_may_cost_beyond_what_it_has(tables: Tables, tmp_path: Path) -> None:
    budget(tables, "key", "alice", 10)
    tags = ["project:support", "key:alice", "hold:4.0000", "cap:4.0000"]
    run = tables.flow_run(FLOW, StateType.FAILED, tags)
    machine(tables, run, 4.0)
    assert sorted(readmit(tables, tmp_path, run, 10.0, tags)) == sorted(
        ["project:support", "key:alice", "hold:10.0000", "cap:10.0000"]
    )
    with pytest.raises(InsufficientCredits):
        readmit(tables, tmp_path, run, 10.01, tags)


def test_what_a_job_held_before_does_not_count_against_it_when_it_holds_anew(tables: Tables, tmp_path: Path) -> None:
    budget(tables, "key", "alice", 10)
    tags = ["project:support", "key:alice", "hold:4.0000", "cap:4.0000"]
    run = tables.flow_run(FLOW, StateType.RUNNING, tags)  # as it was tried again, by Prefect's pages
    machine(tables, run, 1.0)
    tables.flow_run(FLOW, StateType.RUNNING, ["key:alice", "hold:3.0000"])
    assert "hold:7.0000" in readmit(tables, tmp_path, run, 7.0, tags)
    with pytest.raises(InsufficientCredits) as caught:
        readmit(tables, tmp_path, run, 7.01, tags)
    assert (caught.value.details["spent_usd"], caught.value.details["held_usd"]) == (1.0, 3.0)


def test_what_a_budget_holds_for_a_job_is_the_most_it_may_cost(tables: Tables, tmp_path: Path) -> None:
    assert admit(tables, tmp_path, plan(4.0)) == ["key:alice", "hold:4.0000"]
    budget(tables, "project", "support", 10)
    assert admit(tables, tmp_path, plan(4.0)) == ["key:alice", "hold:4.0000", "cap:4.0000"]
