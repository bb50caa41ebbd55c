"""A machine that did its work, and was gone, while the process that had rented it was dead: nothing of it is lost."""

import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from infra.rendezvous.work import heard_of
from infra.settings import Settings
from peft_studio.machines import MachineReceipt, MachineStatus
from peft_studio.trainer.outcome import DONE
from tests.integration.machines.renting_jobs import Renting, renting_at
from tests.integration.providers.vendors import VENDORS, Vendor

GOING = [vendor for vendor in VENDORS if vendor.name in ("runpod", "vast")]  # their machines can end themselves


def followed(renting: Renting, receipt: MachineReceipt) -> None:
    """The process was killed while it followed the machine."""


def not_answered(renting: Renting, receipt: MachineReceipt) -> None:
    """The process was killed before its vendor had told it what the machine is called."""
    unknown = dict.fromkeys(("machine_id", "rented_at", "ready_at", "hourly_rate"))
    long_ago = receipt.intended_at - timedelta(minutes=5)  # or its vendor's list might yet show it
    changes = {**unknown, "status": MachineStatus.INTENDED, "intended_at": long_ago}
    renting.ledger.write(receipt.model_copy(update=changes))


@pytest.mark.parametrize("vendor", GOING, ids=lambda vendor: vendor.name)
@pytest.mark.parametrize("killed", [followed, not_answered])
def test_what_a_machine_has_sent_is_taken_and_paid_for_though_it_is_gone(
    vendor: Vendor, killed: Callable[[Renting, MachineReceipt], None], settings: Settings
) -> None:
    with renting_at(vendor, settings) as renting:
        job, receipt = renting.job, renting.rent()
        deadline = time.monotonic() + 60
        while (heard := heard_of(renting.settings, receipt.name)) is None or not heard.has_ended:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        [machine] = job.cloud.existing()
        job.cloud.terminate(machine)  # as it does itself when nobody takes it back
        killed(renting, receipt)

        attempt = renting.attempt(renting.rent())
        while (code := attempt.poll()) is None:
            time.sleep(0.05)
        renting.give_back()
        assert code == DONE
        assert job.summary is not None and (job.run.adapter / "adapter_model.safetensors").is_file()
        [receipt] = renting.ledger.of_job(job.run.job_id)
        assert receipt.status is MachineStatus.GONE
        assert receipt.cost == pytest.approx(job.billed, abs=1e-4)
        assert len(job.cloud.ledger()) == 1
        job.cloud.close()
