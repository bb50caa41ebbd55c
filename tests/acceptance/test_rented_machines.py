"""Jobs on rented machines, from request to receipt: what happens to a machine leaves no mark on the adapter."""

import asyncio
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.rented import RentingStudio, renting_studio
from infra.providers.base import Account, Order
from infra.providers.runpod import RunPod
from infra.simulators.accounts import GOOD
from infra.simulators.faults import Fault, FaultKind
from peft_studio.events import Log
from peft_studio.jobs import JobStatus, flow_run_id_of
from peft_studio.machines import MachineStatus
from peft_studio.remote import LAUNCHER_VARIABLE
from peft_studio.run_dir import RunDir
from tests.acceptance.conftest import eventually
from tests.acceptance.jobs import flow_process, follow, job, losses, run_dir, short_job, submit, wait_for_step

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
STEPS = 30
LONG = 200  # steps, in which a machine can be taken away
SMALL_GPU = Path(__file__).with_name("small_gpu.py")


@pytest.fixture(scope="module")
def renting(used_data_dir: Callable[[str], Path]) -> Iterator[RentingStudio]:
    with renting_studio(used_data_dir("renting"), "runpod", "vast", "huggingface") as started:
        yield started


@pytest.fixture
def rented(renting: RentingStudio) -> Iterator[RentingStudio]:
    """The studio, with nothing left of what other tests had go wrong, and nothing left of this one's machines."""
    yield renting
    for cloud in renting.clouds.values():
        cloud.faults.clear()
    assert eventually(lambda: renting.existing() == [], 60), renting.existing()


@pytest.fixture(scope="module")
def at_home(renting: RentingStudio) -> str:
    """The hash of the adapter that the same job trains on this machine."""
    return trained_at_home(renting, max_steps=STEPS)


def trained_at_home(renting: RentingStudio, **config: Any) -> str:
    job_id = submit(renting.studio, **config)
    follow(renting.studio, job_id)
    artifact = job(renting.studio, job_id).artifact
    assert artifact is not None
    return artifact.hash


@pytest.mark.parametrize("vendor", ["runpod", "vast", "huggingface"])
def test_a_job_trains_on_a_rented_machine_and_its_adapter_is_the_one_of_this_machine(
    rented: RentingStudio, at_home: str, vendor: str
) -> None:
    job_id = submit(rented.studio, provider=vendor, max_steps=STEPS)
    events = follow(rented.studio, job_id)
    done = rented.job(job_id)
    assert (done["status"], done.get("error")) == ("completed", None)
    assert done["artifact"]["hash"] == at_home
    assert [step for step, _ in losses(events)] == list(range(1, STEPS + 1))
    assert done["evaluation"]["adapter"]["loss"] < done["evaluation"]["base"]["loss"]
    [receipt] = rented.receipts(job_id)
    assert receipt.status is MachineStatus.GONE and receipt.hourly_rate is not None
    assert done["cost"] == pytest.approx(rented.billed(job_id), abs=0.005)
    assert done["cost"] > 0
    again = short_job(provider=vendor, resource_id=receipt.resource_id)
    plan = rented.post("/jobs/plan", config=again).raise_for_status().json()
    assert plan["estimate"]["measured_jobs"] >= 1  # what it took is what the next one is expected to take


def test_a_preempted_job_goes_on_elsewhere_from_its_last_checkpoint(rented: RentingStudio) -> None:
    long = {"max_steps": LONG, "num_epochs": 2, "checkpoint_steps": 5}
    job_id = submit(rented.studio, provider="runpod", **long)
    fetched = run_dir(rented.studio, job_id).checkpoints
    assert eventually(lambda: any(fetched.glob("step-*/manifest.json")), 60), "no checkpoint came to the studio"
    [machine] = rented.clouds["runpod"].existing()
    rented.clouds["runpod"].preempt(machine)
    follow(rented.studio, job_id)
    done = rented.job(job_id)
    assert (done["status"], done.get("error")) == ("completed", None)
    assert done["artifact"]["hash"] == trained_at_home(rented, **long)
    first, second = rented.receipts(job_id)
    assert (first.status, second.status) == (MachineStatus.GONE, MachineStatus.GONE)
    resumed = run_dir(rented.studio, job_id).read_summary()
    assert resumed is not None and resumed.resumed_at and resumed.resumed_at[0] in range(5, LONG, 5)
    assert done["cost"] == pytest.approx(rented.billed(job_id), abs=0.005)


def test_training_that_does_not_go_on_as_it_was_fails_loudly(rented: RentingStudio) -> None:
    long = {"max_steps": 5000, "num_epochs": 100, "checkpoint_steps": 5000}  # it begins again from its first step
    job_id = submit(rented.studio, provider="runpod", **long)
    wait_for_step(rented.studio, job_id, 6)
    [machine] = rented.clouds["runpod"].existing()
    report_another_loss(run_dir(rented.studio, job_id), step=3)
    rented.clouds["runpod"].preempt(machine)
    follow(rented.studio, job_id)
    ended = rented.job(job_id)
    assert ended["status"] == "failed"
    assert ended["error"]["code"] == "RESUME_MISMATCH"
    assert "Step 3 had the loss 9" in str(ended["error"])
    assert [one.status for one in rented.receipts(job_id)] == [MachineStatus.GONE] * 2


def test_a_job_that_needs_more_memory_goes_down_the_rungs_and_then_to_a_larger_gpu(
    rented: RentingStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LAUNCHER_VARIABLE, shlex.join((sys.executable, str(SMALL_GPU), str(tmp_path / "first"))))
    wanted = {"resource_id": "gpu-rtx4090", "batch_size": 8, "max_steps": STEPS, "max_cost": 5}
    job_id = submit(rented.studio, provider="runpod", **wanted)
    said = [event.message for event in follow(rented.studio, job_id) if isinstance(event, Log)]
    done = rented.job(job_id)
    assert (done["status"], done.get("error")) == ("completed", None)
    assert sum("the same steps are tried with" in line for line in said) == 4  # 8 rows, 4, 2, 1, then less kept
    assert any("more than 24 GB" in line for line in said)
    first, second = rented.receipts(job_id)
    assert (first.resource_id, first.vram_gb) == ("gpu-rtx4090", 24)
    assert second.vram_gb is not None and second.vram_gb > 24


def test_a_killed_flow_process_finds_its_machine_again(rented: RentingStudio, at_home: str) -> None:
    job_id = submit(rented.studio, provider="runpod", max_steps=STEPS)
    wait_for_step(rented.studio, job_id, 5)
    flow_process(rented.studio, job_id).kill()
    follow(rented.studio, job_id)
    done = rented.job(job_id)
    assert (done["status"], done.get("error")) == ("completed", None)
    assert done["artifact"]["hash"] == at_home
    assert len(rented.receipts(job_id)) == 1


def test_a_cancelled_job_gives_its_machine_back(rented: RentingStudio) -> None:
    job_id = submit(rented.studio, provider="vast", max_steps=5000, num_epochs=100)
    wait_for_step(rented.studio, job_id, 3)
    rented.post(f"/jobs/{job_id}/cancel").raise_for_status()
    assert eventually(lambda: job(rented.studio, job_id).status is JobStatus.CANCELLED, 60)
    assert eventually(lambda: rented.existing() == [], 60)
    assert eventually(lambda: [one.status for one in rented.receipts(job_id)] == [MachineStatus.GONE], 30)
    assert rented.job(job_id)["cost"] == pytest.approx(rented.billed(job_id), abs=0.005)


def test_a_job_ends_with_a_checkpoint_when_it_has_cost_what_it_may(rented: RentingStudio) -> None:
    # An hour there is a thousand times as dear as it was listed: 12 cents a second.
    rented.clouds["runpod"].faults.add(Fault(kind=FaultKind.PRICE_DRIFT, value=1000))
    job_id = submit(rented.studio, provider="runpod", max_steps=5000, num_epochs=100, max_cost=1.5)
    follow(rented.studio, job_id)
    ended = rented.job(job_id)
    assert (ended["status"], ended["termination_reason"]) == ("failed", "budget_exceeded")
    assert "max_cost" in ended["error"]["details"]
    assert list(run_dir(rented.studio, job_id).checkpoints.glob("step-*/manifest.json"))
    assert ended["cost"] == pytest.approx(rented.billed(job_id), rel=0.2)
    said = [line["message"] for line in rented.api.get(f"/jobs/{job_id}/logs").json()["logs"]]
    assert any("an hour, not $" in line for line in said)
    assert any("of what the job may take is used up" in line for line in said)
    # With a higher limit it goes on where it was.
    saved = run_dir(rented.studio, job_id).latest().metrics["step"]
    rented.post(f"/jobs/{job_id}/retry", max_cost=100).raise_for_status()
    wait_for_step(rented.studio, job_id, int(saved) + 5)
    assert len(rented.receipts(job_id)) == 2
    rented.post(f"/jobs/{job_id}/cancel").raise_for_status()


def test_a_key_that_is_revoked_in_the_middle_fails_the_job_and_calls_for_a_person(rented: RentingStudio) -> None:
    job_id = submit(rented.studio, provider="vast", max_steps=5000, num_epochs=100)
    wait_for_step(rented.studio, job_id, 3)
    cloud = rented.clouds["vast"]
    cloud.faults.add(Fault(kind=FaultKind.REVOKED_KEY))
    rented.post(f"/jobs/{job_id}/pause")  # whatever has it ask its vendor
    assert eventually(lambda: rented.job(job_id)["status"] == "failed", 60)
    ended = rented.job(job_id)
    assert ended["error"]["code"] == "AUTHENTICATION_FAILED"
    [receipt] = rented.receipts(job_id)
    assert receipt.status is MachineStatus.STRANDED and "console" in receipt.reason
    for machine in cloud.existing():  # as a person does, where the machine has not ended itself
        cloud.terminate(machine)
    cloud.faults.clear()  # the platform is connected again
    run_flow(rented, "sweep/default")
    assert eventually(lambda: [one.status for one in rented.receipts(job_id)] == [MachineStatus.GONE], 90)
    assert rented.job(job_id)["cost"] == pytest.approx(rented.billed(job_id), abs=0.005)


def test_the_sweep_ends_what_no_live_job_works_on(rented: RentingStudio) -> None:
    job_id = submit(rented.studio, provider="runpod", max_steps=5000, num_epochs=100)
    wait_for_step(rented.studio, job_id, 3)
    [receipt] = rented.receipts(job_id)
    cloud = rented.clouds["runpod"]
    orphan = receipt.name[:-1] + "9"  # of the same job, but not in the ledger
    rent_directly(rented, orphan)
    rent_directly(rented, "somebody-elses")
    run_flow(rented, "sweep/default")
    assert eventually(lambda: orphan not in rented.existing(), 60)
    assert {receipt.name, "somebody-elses"} <= set(rented.existing())
    for machine in cloud.existing():
        if machine.name == "somebody-elses":
            cloud.terminate(machine)
    rented.post(f"/jobs/{job_id}/cancel").raise_for_status()


def test_a_job_that_no_budget_pays_for_is_refused_and_its_machine_is_never_rented(rented: RentingStudio) -> None:
    limit = {"budgets": [{"scope": "project", "id": "frugal", "monthly_usd": 1.0}]}
    [budget] = rented.api.put("/budgets", json=limit).raise_for_status().json()["budgets"]
    assert (budget["spent_usd"], budget["held_usd"]) == (0, 0)
    costly = short_job(provider="runpod", project_name="frugal", max_cost=1.01)
    refused = rented.post("/jobs", config=costly)
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "INSUFFICIENT_CREDITS")
    job_id = submit(rented.studio, provider="runpod", project_name="frugal", max_cost=0.9, max_steps=STEPS)
    [budget] = rented.api.get("/budgets").json()["budgets"]
    assert budget["spent_usd"] + budget["held_usd"] == pytest.approx(0.9, abs=0.001)
    follow(rented.studio, job_id)
    [budget] = rented.api.get("/budgets").json()["budgets"]
    assert budget["held_usd"] == 0
    assert 0 < budget["spent_usd"] == pytest.approx(rented.job(job_id)["cost"], abs=0.001)
    assert rented.receipts(job_id)[0].key_id is not None
    # Prefect starts what it is told to; the run itself asks the budget, before it rents.
    run_flow(rented, "finetune/default", config=costly)
    [unpaid] = [one for one in rented.api.get("/jobs?project=frugal").json()["jobs"] if one["job_id"] != job_id]
    follow(rented.studio, unpaid["job_id"])
    refused = rented.job(unpaid["job_id"])
    assert (refused["status"], refused["error"]["code"]) == ("failed", "INSUFFICIENT_CREDITS")
    assert rented.receipts(unpaid["job_id"]) == []
    # So does one that is tried again there, although it held enough when it was submitted.
    expensive = short_job(provider="runpod", project_name="frugal", max_cost=0.9, max_steps=5000, num_epochs=100)
    paid = rented.post("/jobs", config=expensive).raise_for_status().json()["job_id"]
    rented.post(f"/jobs/{paid}/cancel").raise_for_status()
    assert eventually(lambda: rented.job(paid)["status"] == "cancelled", 60)
    rented.api.put("/budgets", json={"budgets": [limit["budgets"][0] | {"monthly_usd": 0.8}]}).raise_for_status()
    machines = len(rented.receipts(paid))
    prefect(rented, "flow-run", "retry", str(flow_run_id_of(paid)))
    assert eventually(lambda: rented.job(paid)["status"] == "failed", 90)
    assert rented.job(paid)["error"]["code"] == "INSUFFICIENT_CREDITS"
    assert len(rented.receipts(paid)) == machines
    assert rented.api.put("/budgets", json={"budgets": []}).json() == {"budgets": []}


def report_another_loss(run: RunDir, step: int) -> None:
    """Have it on record that a step had a much larger loss than it had."""
    with run.events_path.open("r+b") as events:
        content = events.read()
        [line] = [line for line in content.splitlines() if b'"loss":' in line and f'"step":{step}.0'.encode() in line]
        events.seek(content.index(line) + line.index(b'"loss":') + len(b'"loss":'))
        events.write(b"9")


def rent_directly(renting: RentingStudio, name: str) -> None:
    """Rent a machine at RunPod behind the studio's back."""
    address = renting.addresses["runpod"]

    async def rent() -> None:
        provider = RunPod(Account(address, {"api_key": GOOD}))
        offer = next(offer for offer in await provider.offers() if offer.available)
        order = Order(name=name, image="x", command=["sleep", "600"], environment={}, disk_gb=10, max_seconds=600)
        await provider.rent(offer, order)

    asyncio.run(rent())


def run_flow(renting: RentingStudio, deployment: str, **parameters: Any) -> None:
    """Have Prefect run a deployment, the way its users do."""
    given = [word for name, value in parameters.items() for word in ("--param", f"{name}={json.dumps(value)}")]
    prefect(renting, "deployment", "run", deployment, *given)


def prefect(renting: RentingStudio, *words: str) -> None:
    """Call Prefect's command line, as its users do."""
    command = [sys.executable, "-m", "prefect", *words]
    printed = subprocess.run(
        [sys.executable, "-m", "peft_studio.cli", "env", "--data-dir", str(renting.studio.data_dir)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    variables = dict(line.removeprefix("export ").split("=", 1) for line in printed.splitlines())
    told = {name: shlex.split(value)[0] if value else "" for name, value in variables.items()}
    subprocess.run(command, check=True, capture_output=True, env=os.environ | told)
