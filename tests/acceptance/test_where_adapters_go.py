"""One job on a real studio and what leaves it: its adapter in a bucket, its metrics, an export, and it once more."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from benchmarks.studio import ROOT, Studio
from infra.registries.s3 import file_system
from infra.simulators.loopback import served
from infra.simulators.wandb import KEY, SimulatedRun, SimulatedWandb, create_wandb
from peft_studio.errors import InvalidConfig
from peft_studio.jobs import Job, JobStatus
from peft_studio.registries import PublicationStatus
from tests.acceptance.conftest import eventually
from tests.acceptance.jobs import follow, job, submit

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
ROWS, STEPS = 100, 4


@dataclass
class Done:
    """A finished job and where it has left something."""

    job: Job
    rows: Path
    bucket: Any
    wandb: SimulatedWandb

    @property
    def shown(self) -> SimulatedRun | None:
        """The job's run at W&B."""
        return self.wandb.runs.get(self.job.job_id.removeprefix("job_"))


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    address = {"endpoint_url": f"http://{host}:{port}", "region": "us-east-1"}
    yield {"access_key_id": "key", "secret_access_key": "secret", **address}
    server.stop()


@pytest.fixture(scope="module")
def done(studio: Studio, s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    bucket = file_system({name: value for name, value in s3.items() if name != "region"})  # which has no such buckets
    wandb = SimulatedWandb()
    bucket.mkdir("acceptance")
    rows = tmp_path_factory.mktemp("data") / "rows.jsonl"
    rows.write_text("".join((ROOT / "demo" / "support.jsonl").read_text().splitlines(keepends=True)[:ROWS]))
    with served(create_wandb(wandb)) as address, studio.client() as client:
        client.connect_platform("s3", s3)
        client.connect_platform("wandb", {"api_key": KEY, "base_url": address})
        job_id = submit(
            studio,
            dataset_path=str(rows),
            max_steps=STEPS,
            seed=5,
            registries=[{"kind": "s3", "url": "s3://acceptance/adapters"}],
            experiment_tracker="wandb",
        )
        follow(studio, job_id)
        yield Done(job(studio, job_id), rows, bucket, wandb)
        client.disconnect_platform("wandb")
        client.disconnect_platform("s3")


def test_the_adapter_is_a_version_in_the_bucket_when_the_job_ends(studio: Studio, done: Done) -> None:
    assert done.job.status is JobStatus.COMPLETED
    with studio.client() as client:
        adapter = client.get_adapter(str(done.job.adapter_id))
    (published,) = adapter.registries
    assert published.status is PublicationStatus.PUBLISHED
    home = str(published.url).removeprefix("s3://")
    assert done.bucket.exists(f"{home}/manifest.json")
    assert done.bucket.cat_file(f"{home}/adapter_model.safetensors") == Path(adapter.path).read_bytes()


def test_the_tracker_has_every_step_and_the_end(done: Done) -> None:
    assert eventually(lambda: done.shown and done.shown.state == "finished", 60)
    assert done.shown and [row["_step"] for row in done.shown.rows if "loss" in row] == list(range(1, STEPS + 1))


def test_its_adapter_becomes_a_file_that_llama_cpp_has_loaded(studio: Studio, done: Done) -> None:
    with studio.client() as client:
        made = client.create_export(str(done.job.adapter_id), {"format": "gguf", "name": "support"})
        assert eventually(lambda: client.get_export(made.export_id).status.is_final, 120)
        export = client.get_export(made.export_id)
    assert export.status is JobStatus.COMPLETED, export.error
    assert export.result and [file.name for file in export.result.files] == ["support.gguf"]
    assert export.result.verification and export.result.verification.same_tokens > 0


def test_the_job_is_done_again_from_its_lineage_and_refused_where_the_data_is_gone(studio: Studio, done: Done) -> None:
    with studio.client() as client:
        again = client.reproduce_job(done.job.job_id)
        assert again.differences == {}
        follow(studio, again.job_id)
        reproduced = client.get_job(again.job_id)
        assert reproduced.status is JobStatus.COMPLETED and reproduced.reused_from is None
        assert reproduced.artifact and done.job.artifact and reproduced.artifact.hash == done.job.artifact.hash
        done.rows.unlink()
        with pytest.raises(InvalidConfig) as refused:
            client.reproduce_job(done.job.job_id)
    assert refused.value.details["field"] == "dataset_path"
