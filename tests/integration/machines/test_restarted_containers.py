"""A machine whose container is started anew by its vendor while it works: it goes on, or ends itself at once."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from infra.settings import Settings
from infra.simulators.cloud import SimulatedMachine, step_of
from peft_studio.events import Metrics
from peft_studio.machines import MachineReceipt, MachineStatus
from peft_studio.remote import LAUNCHER_VARIABLE
from peft_studio.trainer.outcome import DONE
from tests.integration.machines import stand_in_trainer
from tests.integration.machines.renting_jobs import Renting, renting_at, studio
from tests.integration.providers.vendors import VENDORS

[RUNPOD] = [vendor for vendor in VENDORS if vendor.name == "runpod"]
SECONDS = 30


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An S3 server with the studio's bucket."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "test")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="studio")
        yield f"http://{host}:{port}"
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["callback", "bucket"])
def settings(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setenv(LAUNCHER_VARIABLE, f"{sys.executable} {stand_in_trainer.__file__}")
    if request.param == "callback":
        with studio(tmp_path / "data") as started:
            yield started
        return
    endpoint: str = request.getfixturevalue("endpoint")
    yield Settings(
        data_dir=tmp_path / "data",
        boot_minutes=0.5,
        stop_seconds=2,
        bucket="s3://studio/x",
        bucket_endpoint=endpoint,
        public_url="http://127.0.0.1:9",  # where nobody is: no machine may need it
    )


def renting_from(settings: Settings, *, wipes_disk: bool) -> AbstractContextManager[Renting]:
    return renting_at(replace(RUNPOD, settings={**RUNPOD.settings, "wipes_disk": wipes_disk}), settings)


def restarted_at_work(renting: Renting) -> tuple[MachineReceipt, SimulatedMachine]:
    """Have a machine that trains, and its container's program killed."""
    receipt = renting.rent()
    [machine] = renting.job.cloud.existing()
    soon = time.monotonic() + SECONDS
    while step_of(machine) < stand_in_trainer.CHECKPOINT_STEPS + 1:
        assert time.monotonic() < soon, (machine.home / "console.log").read_text()
        time.sleep(0.05)
    assert machine.process is not None
    os.killpg(machine.process.pid, signal.SIGKILL)
    return receipt, machine


def test_a_container_that_is_started_anew_with_its_disk_goes_on_with_its_work(settings: Settings) -> None:
    with renting_from(settings, wipes_disk=False) as renting:
        receipt, machine = restarted_at_work(renting)
        attempt = renting.attempt(receipt)
        while (code := attempt.poll()) is None:
            time.sleep(0.05)
        renting.give_back()
        job = renting.job
        assert (code, machine.starts >= 2) == (DONE, True)
        assert job.summary is not None and job.summary.resumed_at in ([4], [8])
        steps = {int(event.metrics["step"]) for _, event in job.run.events() if isinstance(event, Metrics)}
        assert steps == set(range(1, stand_in_trainer.STEPS + 1))
        [receipt] = renting.ledger.of_job(job.run.job_id)
        assert receipt.status is MachineStatus.GONE and len(job.cloud.ledger()) == 1
        job.cloud.close()


def test_a_container_that_is_started_anew_without_its_disk_ends_its_machine_at_once(settings: Settings) -> None:
    with renting_from(settings, wipes_disk=True) as renting:
        _, machine = restarted_at_work(renting)
        soon = time.monotonic() + SECONDS
        while machine.gone is None:  # nobody follows it meanwhile
            assert time.monotonic() < soon, (machine.home / "console.log").read_text()
            time.sleep(0.05)
        assert renting.rental().current() is None
        [receipt] = renting.ledger.of_job(renting.job.run.job_id)
        assert receipt.status is MachineStatus.GONE
        assert receipt.cost == pytest.approx(renting.job.billed, abs=1e-4)
        renting.job.cloud.close()
