"""The sweep: what is rented and nobody works on is ended, and what goes wrong with one machine harms no other."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Crashed, Paused, Running

from infra.machines.ledger import studio_id
from infra.machines.receipts import FOLDER, RECEIPT
from infra.machines.sweep import Sweeper, SweepReport, may_go_on
from infra.providers.base import Account, Order
from infra.providers.runpod import RunPod
from infra.simulators.accounts import GOOD
from peft_studio.events import now
from peft_studio.machine_names import machine_name
from peft_studio.machines import MachineReceipt, MachineStatus
from tests.integration.machines.renting_jobs import Renting, renting_at, studio
from tests.integration.providers.vendors import VENDORS

[VENDOR] = [vendor for vendor in VENDORS if vendor.name == "runpod"]


@dataclass
class JobsInMemory:
    """Which machines there were, and the jobs that live."""

    names: list[str] = field(default_factory=list[str])
    live: set[str] = field(default_factory=set[str])

    def machines(self) -> list[str]:
        return self.names

    def is_live(self, job_id: str) -> bool:
        return job_id in self.live


@pytest.fixture
def renting(tmp_path: Path) -> Iterator[Renting]:
    with studio(tmp_path / "data") as settings, renting_at(VENDOR, settings) as started:
        yield started
        started.job.cloud.close()


def machine(renting: Renting, **changes: object) -> MachineReceipt:
    """One that its vendor has and the ledger knows of, whatever it does."""
    earlier = renting.ledger.of_job(renting.job.run.job_id)
    name = machine_name(studio_id(renting.settings), renting.job.run.job_id, len(earlier) + 1)
    account = Account(renting.settings.platform_urls["runpod"], {"api_key": GOOD})

    async def rent() -> str:
        offer = next(one for one in await RunPod(account).offers() if one.available)
        wanted = Order(name=name, image="x", command=["sleep", "60"], environment={}, disk_gb=10, max_seconds=60)
        return (await RunPod(account).rent(offer, wanted)).id

    at_first = {
        "name": name,
        "provider": "runpod",
        "resource_id": "gpu-l4",
        "job_id": renting.job.run.job_id,
        "attempt": len(earlier) + 1,
        "status": MachineStatus.READY,
        "machine_id": asyncio.run(rent()),
        "offered_rate": 1.0,
        "billing_increment": 1,
        "intended_at": now(),
        "rented_at": now(),
    }
    return renting.ledger.write(MachineReceipt.model_validate(at_first | changes))


def sweep(renting: Renting, jobs: JobsInMemory) -> SweepReport:
    return Sweeper(renting.settings, renting.credentials, renting.ledger, jobs).sweep()


def statuses(renting: Renting) -> list[MachineStatus]:
    return [one.status for one in renting.ledger.of_job(renting.job.run.job_id)]


def test_a_machine_of_a_live_job_is_kept_unless_the_job_has_let_go_of_it(renting: Renting) -> None:
    at_work = machine(renting)
    let_go = machine(renting, status=MachineStatus.RELEASING, released_at=now() - timedelta(minutes=20))
    jobs = JobsInMemory([at_work.name, let_go.name], {renting.job.run.job_id})
    report = sweep(renting, jobs)
    assert (report.kept, report.ended) == ([f"{at_work.name} at runpod"], [f"{let_go.name} at runpod"])
    assert statuses(renting) == [MachineStatus.READY, MachineStatus.GONE]
    jobs.live.clear()
    sweep(renting, jobs)
    assert statuses(renting) == [MachineStatus.GONE, MachineStatus.GONE]
    assert renting.job.cloud.existing() == []


def test_a_machine_that_cannot_be_looked_after_keeps_no_other_from_being_ended(renting: Renting) -> None:
    first, second = machine(renting), machine(renting)
    (renting.job.run.path / FOLDER / first.name / RECEIPT).write_text("{}")
    report = sweep(renting, JobsInMemory([first.name, second.name]))
    assert report.ended == [f"{second.name} at runpod"]
    assert [issue.partition(":")[0] for issue in report.issues] == [f"{first.name} at runpod", first.name]
    assert [one.name for one in renting.job.cloud.existing()] == [first.name]


@pytest.mark.parametrize(
    ("state", "live"),
    [
        (None, True),
        (Running(), True),
        (Paused(), True),  # its process gives the machine back just now
        (Paused(timestamp=now() - timedelta(minutes=20)), False),  # it had none when it was paused
        (Completed(), False),
        (Cancelled(), False),
        (Crashed(timestamp=now() - timedelta(minutes=5)), True),
        (Crashed(timestamp=now() - timedelta(hours=2)), False),  # nobody has taken it up again
    ],
)
def test_only_a_job_that_is_alive_or_soon_taken_up_again_keeps_machines(state: State[Any] | None, live: bool) -> None:
    assert may_go_on(state) is live
