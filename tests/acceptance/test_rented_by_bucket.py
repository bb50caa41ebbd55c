"""Jobs on rented machines that never call the studio: all goes by way of a bucket, which is a real S3 server here."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from benchmarks.rented import RentingStudio, renting_studio
from peft_studio.events import Metrics
from peft_studio.machines import MachineStatus
from tests.acceptance.conftest import eventually
from tests.acceptance.jobs import follow, job, losses, run_dir, submit, wait_for_step

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
STEPS = 30
SECRET_KEY = "canary-of-the-bucket"


@dataclass
class Bucket:
    """The studio's bucket, as its owner sees it."""

    client: Any

    def names(self) -> list[str]:
        return [one["Key"] for one in self.client.list_objects_v2(Bucket="studio").get("Contents", [])]


@pytest.fixture(scope="module")
def bucket() -> Iterator[tuple[Bucket, str]]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="test",
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="studio")
    yield Bucket(client), endpoint
    server.stop()


@pytest.fixture(scope="module")
def renting(used_data_dir: Callable[[str], Path], bucket: tuple[Bucket, str]) -> Iterator[RentingStudio]:
    credentials = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    settings = {
        "PEFT_STUDIO_BUCKET": "s3://studio/some/folder",
        "PEFT_STUDIO_BUCKET_ENDPOINT": bucket[1],
        "PEFT_STUDIO_PUBLIC_URL": "http://127.0.0.1:9",  # where nobody is: no machine may need it
    }
    with renting_studio(used_data_dir("bucket"), "runpod", **credentials, **settings) as started:
        yield started


@pytest.fixture
def rented(renting: RentingStudio, bucket: tuple[Bucket, str]) -> Iterator[RentingStudio]:
    """The studio, which leaves neither a machine nor anything in its bucket."""
    yield renting
    renting.clouds["runpod"].faults.clear()
    assert eventually(lambda: renting.existing() == [], 60), renting.existing()
    assert eventually(lambda: bucket[0].names() == [], 30), bucket[0].names()


@pytest.fixture(scope="module")
def at_home(renting: RentingStudio) -> str:
    """The hash of the adapter that the same job trains on this machine."""
    job_id = submit(renting.studio, max_steps=STEPS)
    follow(renting.studio, job_id)
    artifact = job(renting.studio, job_id).artifact
    assert artifact is not None
    return artifact.hash


def test_a_job_by_way_of_a_bucket_trains_the_adapter_of_this_machine(rented: RentingStudio, at_home: str) -> None:
    job_id = submit(rented.studio, provider="runpod", max_steps=STEPS)
    events = follow(rented.studio, job_id)
    done = rented.job(job_id)
    assert (done["status"], done.get("error")) == ("completed", None)
    assert done["artifact"]["hash"] == at_home
    assert [step for step, _ in losses(events)] == list(range(1, STEPS + 1))
    assert done["evaluation"]["adapter"]["loss"] < done["evaluation"]["base"]["loss"]
    [receipt] = rented.receipts(job_id)
    assert receipt.status is MachineStatus.GONE
    assert done["cost"] == pytest.approx(rented.billed(job_id), abs=0.005)


def test_a_job_whose_machine_was_taken_goes_on_from_what_that_had_left_in_the_bucket(rented: RentingStudio) -> None:
    job_id = submit(rented.studio, provider="runpod", max_steps=5000, num_epochs=100, checkpoint_steps=5)
    run, cloud = run_dir(rented.studio, job_id), rented.clouds["runpod"]
    assert eventually(lambda: list(run.checkpoints.glob("step-*/manifest.json")), 90)
    [first] = cloud.existing()
    cloud.preempt(first)
    assert eventually(lambda: len(rented.receipts(job_id)) == 2, 90)
    seen = run.latest().metrics["step"]
    assert eventually(lambda: run.latest().metrics["step"] > seen, 90)
    steps = [event.metrics["step"] for _, event in run.events() if isinstance(event, Metrics)]
    assert steps.count(1) == 1
    rented.post(f"/jobs/{job_id}/cancel").raise_for_status()
    assert eventually(lambda: rented.job(job_id)["status"] == "cancelled", 60)


def test_a_machine_at_work_has_no_key_of_the_bucket_and_its_claim_is_gone(
    rented: RentingStudio, bucket: tuple[Bucket, str]
) -> None:
    job_id = submit(rented.studio, provider="runpod", max_steps=5000, num_epochs=100)
    wait_for_step(rented.studio, job_id, 3)
    [receipt] = rented.receipts(job_id)
    place = f"some/folder/machines/{receipt.name}/"
    assert all(key.startswith(place) for key in bucket[0].names())
    assert f"{place}claim.json" not in bucket[0].names()
    [machine] = rented.clouds["runpod"].existing()
    seen = [str(machine.environment)]
    seen += [file.read_text(errors="replace") for file in machine.home.rglob("*") if file.is_file()]
    assert not any(SECRET_KEY in text for text in seen)
    rented.post(f"/jobs/{job_id}/cancel").raise_for_status()
    assert eventually(lambda: rented.job(job_id)["status"] == "cancelled", 60)
