"""A machine whose vendor takes the studio's key no more: it ends by its own where it has one; a new key settles it."""

import time

import pytest

from infra.settings import Settings
from infra.simulators.faults import Fault, FaultKind
from peft_studio.errors import CredentialRefused
from peft_studio.machines import MachineStatus
from tests.integration.machines.renting_jobs import renting_at
from tests.integration.providers.vendors import VENDORS

SECONDS = 30


@pytest.mark.parametrize("name", ["runpod", "vast"])
def test_a_machine_that_its_studio_cannot_end_ends_itself_and_a_new_key_closes_its_receipt(
    name: str, settings: Settings
) -> None:
    [vendor] = [vendor for vendor in VENDORS if vendor.name == name]
    with renting_at(vendor, settings) as renting:
        cloud, receipt = renting.job.cloud, renting.rent()
        cloud.faults.add(Fault(kind=FaultKind.REVOKED_KEY))
        with pytest.raises(CredentialRefused):
            renting.give_back()
        soon = time.monotonic() + SECONDS
        while cloud.existing():
            assert time.monotonic() < soon
            time.sleep(0.05)
        waiting = renting.ledger.get(receipt.name)
        assert waiting is not None and (waiting.status, waiting.cost) == (MachineStatus.STRANDED, None)
        cloud.faults.clear()  # another key, of the same account
        renting.give_back()  # as the sweep does
        closed = renting.ledger.get(receipt.name)
        assert closed is not None and closed.status is MachineStatus.GONE
        assert closed.cost == pytest.approx(renting.job.billed, abs=1e-4)
        cloud.close()


def test_a_job_that_is_tried_again_does_not_take_up_the_machine_that_it_had_given_back(settings: Settings) -> None:
    [vendor] = [vendor for vendor in VENDORS if vendor.name == "lambda"]  # whose machines cannot end themselves
    with renting_at(vendor, settings) as renting:
        cloud = renting.job.cloud
        renting.rent()
        cloud.faults.add(Fault(kind=FaultKind.REVOKED_KEY))
        with pytest.raises(CredentialRefused):
            renting.give_back()
        cloud.faults.clear()
        assert renting.rental().current() is None
        assert cloud.existing() == []
        [closed] = renting.ledger.of_job(renting.job.run.job_id)
        assert (closed.status, closed.lost) == (MachineStatus.GONE, False)
        cloud.close()
