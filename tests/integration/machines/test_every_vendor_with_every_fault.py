"""
The conformance kit of jobs: every vendor, with everything that can go wrong there, ends a job as it should end.

The layers are the studio's own, the machines run ``python -m peft_studio.remote``, the vendors are simulated. What a
vendor's module promises by itself is checked in ``test_provider_contract.py``.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest

from infra.providers.base import NoCapacity
from infra.settings import Settings
from infra.simulators.faults import OF_HOSTS, Fault, FaultKind
from peft_studio.errors import CredentialRefused, InsufficientCredits
from peft_studio.events import Metrics
from peft_studio.machines import MachineStatus
from tests.integration.machines import stand_in_trainer
from tests.integration.machines.renting_jobs import Job, run_job
from tests.integration.providers.vendors import VENDORS, Vendor

PREEMPTED_AT, DRIFT = 11, 3.0
VALUES = {
    FaultKind.TIMEOUT_AFTER_CREATE: 2.0,
    FaultKind.PREEMPTED: PREEMPTED_AT,
    FaultKind.SLOW_BOOT: 2.0,
    FaultKind.LIST_LAG: 1.5,
    FaultKind.PRICE_DRIFT: DRIFT,
}
FAULTS = [None, *(Fault(kind=kind, value=VALUES.get(kind, 0.0)) for kind in FaultKind if kind not in OF_HOSTS)]
AT_ONCE = 8


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.name)
def test_a_job_ends_as_it_should_whatever_goes_wrong_at_its_vendor(vendor: Vendor, settings: Settings) -> None:
    possible = [fault for fault in FAULTS if fault is None or fault.kind not in vendor.impossible]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = list(pool.map(lambda fault: run_job(vendor, fault, settings), possible))
    issues = {}
    for fault, job in zip(possible, jobs, strict=True):
        try:
            check(job, fault.kind if fault else None)
        except AssertionError as error:
            issues[fault.kind if fault else "nothing"] = f"{error} (it ended with {job.error!r}; said: {job.said})"
        finally:
            job.cloud.close()
    assert not issues, "\n".join(f"{fault}: {issue}" for fault, issue in issues.items())


def test_a_machine_that_was_made_and_never_started_is_given_back_and_paid_for(settings: Settings) -> None:
    [vast] = [vendor for vendor in VENDORS if vendor.name == "vast"]
    job = run_job(vast, Fault(kind=FaultKind.NO_CAPACITY), settings, spot=True)
    try:
        assert job.error is None and job.summary is not None
        assert [receipt.status for receipt in job.receipts] == [MachineStatus.GONE] * 2
        assert "never started" in job.receipts[0].reason
        assert job.cloud.existing() == []
        assert job.cost == pytest.approx(job.billed, abs=1e-4)
        check_secrets(job)
    finally:
        job.cloud.close()


def check(job: Job, fault: FaultKind | None) -> None:
    """Check how a job has ended: as this fault calls for, at the vendor's own price, with nothing left or shown."""
    check_secrets(job)
    statuses = [receipt.status for receipt in job.receipts]
    match fault:
        case FaultKind.REVOKED_KEY:
            assert isinstance(job.error, CredentialRefused)
            assert statuses == [MachineStatus.STRANDED]
            return
        case FaultKind.OUT_OF_CREDIT:
            assert isinstance(job.error, InsufficientCredits)
            assert (statuses, job.cloud.ledger()) == ([MachineStatus.NEVER], [])
            return
        case FaultKind.NO_CAPACITY | FaultKind.STALE_OFFER if isinstance(job.error, NoCapacity):
            assert job.cloud.ledger() == []  # there was no other offer to take
            return
        case _:
            assert job.error is None
    assert job.summary is not None and job.summary.total_steps == stand_in_trainer.STEPS
    assert (job.run.adapter / "adapter_model.safetensors").is_file()
    assert job.run.read_evaluation() is not None
    check_machines(job, fault)
    assert job.cloud.existing() == []
    assert all(receipt.status.is_over for receipt in job.receipts)
    assert abs(job.cost - job.billed) < 0.01 + dearest_increment(job), f"{job.cost} is not {job.billed}"


def check_machines(job: Job, fault: FaultKind | None) -> None:
    """Check how many machines there were, and that each step was trained once, or again from the checkpoint on."""
    there = [receipt for receipt in job.receipts if receipt.status is MachineStatus.GONE]
    steps = [int(event.metrics["step"]) for _, event in job.run.events() if isinstance(event, Metrics)]
    once = list(range(1, stand_in_trainer.STEPS + 1))
    assert job.summary is not None
    if fault is FaultKind.PREEMPTED:
        assert len(there) == 2 and job.summary.resumed_at in ([4], [8])
        assert sorted(set(steps)) == once
    elif fault is FaultKind.ENDLESS_BOOT:
        assert len(there) == 2 and steps == once
        assert [receipt.ready_at is None for receipt in there] == [True, False]
    else:
        assert len(there) == len(job.cloud.ledger()) == 1 and steps == once
    if fault is FaultKind.PRICE_DRIFT:
        assert there[0].hourly_rate == pytest.approx(DRIFT * there[0].offered_rate, rel=0.05)  # disk apart


def check_secrets(job: Job) -> None:
    """Check that the vendor's key was shown to nobody."""
    texts = [repr(job.error), *job.said, *(one.model_dump_json() for one in job.published)]
    texts += [str(machine.environment) + str(machine.command) for machine in job.cloud.machines.values()]
    texts += [path.read_text(errors="replace") for path in job.run.path.rglob("*") if path.is_file()]
    assert job.secrets and not any(secret in text for secret in job.secrets for text in texts)


def dearest_increment(job: Job) -> float:
    """Return what one increment more or less costs, where the studio has to reckon because the vendor does not tell."""
    if job.vendor.tells_bill:
        return 0.0
    rates = [receipt.hourly_rate or receipt.offered_rate for receipt in job.receipts]
    return max(rates) * max(receipt.billing_increment for receipt in job.receipts) / 3600
