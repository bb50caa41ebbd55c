"""A machine whose creation nobody confirmed, and which shows up once another one was rented: it gets no work."""

import time
from datetime import timedelta

from infra.rendezvous.door import CallbackDoor
from infra.settings import Settings
from infra.simulators.faults import Fault, FaultKind
from peft_studio.machines import MachineStatus
from peft_studio.remote.assignment import Assignment
from tests.integration.machines.renting_jobs import SECONDS, renting_at
from tests.integration.providers.vendors import VENDORS


def test_a_machine_that_shows_up_too_late_is_not_paid_for_beside_the_one_that_has_its_work(settings: Settings) -> None:
    [vendor] = [vendor for vendor in VENDORS if vendor.name == "runpod"]
    with renting_at(vendor, settings) as renting:
        cloud, renting.lost_answer_seconds = renting.job.cloud, 0.1
        trouble = FaultKind.ERROR_AFTER_CREATE, FaultKind.LIST_LAG, FaultKind.SLOW_BOOT
        cloud.faults.add(*(Fault(kind=kind, value=1.0) for kind in trouble))
        ready = renting.rent()
        late, used = renting.ledger.of_job(renting.job.run.job_id)
        assert used == ready and ready.status is MachineStatus.READY
        assert late.status is MachineStatus.RELEASING and late.released_at is not None
        deadline = time.monotonic() + 30
        while [one.name for one in cloud.existing()] != [ready.name]:  # it has found no work, and has ended itself
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assignment = CallbackDoor(settings, ready.name).run.read(f"machines/{ready.name}/assignment.json", Assignment)
        assert assignment is not None and assignment.deadline_seconds == SECONDS
        renting.ledger.change(late, intended_at=late.intended_at - timedelta(minutes=5))  # it will not appear any more
        renting.give_back()
        assert cloud.existing() == []
        assert all(one.status.is_over for one in renting.ledger.of_job(renting.job.run.job_id))
        cloud.close()
