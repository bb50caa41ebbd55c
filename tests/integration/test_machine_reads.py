"""Receipts of rented machines, read from Prefect's own tables."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID, uuid4

import pytest

from infra.machines.ledger import Ledger
from infra.machines.reads import KEY, MACHINE, MachineReads
from infra.machines.settling import MachinesInPrefect, closing
from infra.prefect_database import PrefectDatabase
from infra.settings import Settings
from peft_studio.errors import ResourceUnavailable
from peft_studio.jobs import job_id_of
from peft_studio.machines import MachineReceipt, MachineStatus
from tests.integration.prefect_tables import Tables, prefect_tables

JULY = datetime(2026, 7, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def tables() -> Iterator[Tables]:
    with TemporaryDirectory(prefix="pg-") as folder, prefect_tables(Path(folder)) as started:
        yield started


@pytest.fixture(autouse=True)
def _empty(tables: Tables) -> None:
    tables.run("TRUNCATE artifact, artifact_collection")


def receipt(name: str, run: UUID, status: MachineStatus, at: datetime, attempt: int = 1) -> MachineReceipt:
    return MachineReceipt(
        name=KEY + name,
        provider="runpod",
        resource_id="gpu-rtx4090",
        job_id=job_id_of(run),
        attempt=attempt,
        status=status,
        offered_rate=0.44,
        billing_increment=1,
        intended_at=at,
    )


def keep(tables: Tables, kept: MachineReceipt, run: UUID | None) -> None:
    tables.artifact(kept.name, MACHINE, kept.model_dump(mode="json"), flow_run_id=run, created=kept.intended_at)


def read(
    tables: Tables, ask: Callable[[MachineReads], Awaitable[Sequence[MachineReceipt]]]
) -> list[tuple[str, MachineStatus]]:
    async def reading() -> Sequence[MachineReceipt]:
        database = PrefectDatabase(tables.url)
        try:
            return await ask(MachineReads(database))
        finally:
            await database.close()

    return [(found.name.removeprefix(KEY), found.status) for found in asyncio.run(reading())]


def test_the_newest_version_counts_whoever_wrote_it(tables: Tables) -> None:
    run = uuid4()
    first = receipt("a", run, MachineStatus.INTENDED, JULY)
    keep(tables, first, run)
    keep(tables, first.model_copy(update={"status": MachineStatus.READY}), run)
    assert read(tables, lambda reads: reads.of_job(run)) == [("a", MachineStatus.READY)]
    assert read(tables, lambda reads: reads.not_over()) == [("a", MachineStatus.READY)]
    keep(tables, first.model_copy(update={"status": MachineStatus.GONE}), None)  # by the sweep
    assert read(tables, lambda reads: reads.of_job(run)) == [("a", MachineStatus.GONE)]
    assert read(tables, lambda reads: reads.not_over()) == []


def test_a_job_has_its_own_machines_in_order_and_nothing_else(tables: Tables) -> None:
    mine, other = uuid4(), uuid4()
    keep(tables, receipt("second", mine, MachineStatus.RENTED, JULY + timedelta(hours=1), 2), mine)
    keep(tables, receipt("first", mine, MachineStatus.GONE, JULY), mine)
    keep(tables, receipt("other", other, MachineStatus.READY, JULY), other)
    tables.artifact("result", "peft-studio.result", {"adapter_id": "a"}, flow_run_id=mine, created=JULY)
    assert [name for name, _ in read(tables, lambda reads: reads.of_job(mine))] == ["first", "second"]
    assert [name for name, _ in read(tables, lambda reads: reads.latest(1))] == ["second"]
    assert read(tables, lambda reads: reads.of_job(uuid4())) == []


def test_all_that_still_need_something_are_found(tables: Tables) -> None:
    for day, status in enumerate(MachineStatus):
        run = uuid4()
        keep(tables, receipt(status, run, status, JULY + timedelta(days=day)), run)
    found = [name for name, _ in read(tables, lambda reads: reads.not_over())]
    assert found == ["intended", "rented", "ready", "releasing", "stranded"]


@pytest.mark.parametrize("month", [7, 12])
def test_a_month_begins_and_ends_in_utc(tables: Tables, month: int) -> None:
    begin = JULY.replace(month=month)
    end = datetime(2027, 1, 1, tzinfo=UTC) if month == 12 else JULY.replace(month=8)
    moment = timedelta(seconds=1)
    for name, at in {"before": begin - moment, "first": begin, "last": end - moment, "after": end}.items():
        run = uuid4()
        keep(tables, receipt(name, run, MachineStatus.GONE, at), run)
    found = [name for name, _ in read(tables, lambda reads: reads.of_month(begin + timedelta(days=12)))]
    assert found == ["first", "last"]


def test_a_receipt_that_is_settled_is_in_the_ledger_and_none_is_while_a_sweep_looks(
    tables: Tables, tmp_path: Path
) -> None:
    run, settings, published = uuid4(), Settings(data_dir=tmp_path), list[MachineReceipt]()
    stranded, ledger = receipt("a", run, MachineStatus.STRANDED, JULY), Ledger(settings, published.append)
    keep(tables, stranded, run)

    async def settle() -> MachineReceipt:
        database = PrefectDatabase(tables.url)
        try:
            return await MachinesInPrefect(database, settings, ledger).settle(stranded.name, 1.5, "operations")
        finally:
            await database.close()

    with closing(settings, patiently=True), pytest.raises(ResourceUnavailable, match="sweep"):
        asyncio.run(settle())
    closed = asyncio.run(settle())
    assert (closed.status, closed.cost, closed.settled_by) == (MachineStatus.GONE, 1.5, "operations")
    assert published == [closed] == [*ledger.of_job(job_id_of(run))]
