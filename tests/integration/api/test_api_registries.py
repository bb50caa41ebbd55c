"""Publishing adapters over HTTP, and training them again from their lineage."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.settings import Settings
from infra.simulators.accounts import GOOD
from infra.simulators.hub_uploads import UploadHub, create_upload_hub
from infra.simulators.loopback import served
from peft_studio.jobs import Artifact, JobStatus
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.studio_in_memory import JobsInMemory
from tests.integration.registries.published import CONFIG, JOB, plan, stored

REGISTRY = {"kind": "huggingface", "repository": "me/my-adapter"}
ADAPTER = "adapter_" + JOB.removeprefix("job_")


@pytest.fixture
def hub() -> UploadHub:
    return UploadHub()


@pytest.fixture
def studio(hub: UploadHub, connect: Connect) -> Iterator[Client]:
    with served(create_upload_hub(hub)) as address:
        yield connect(platform_urls={"huggingface": address})


@pytest.fixture
def made(jobs: JobsInMemory, tmp_path: Path) -> str:
    """A job that is done; its adapter lies in the store."""
    adapter = stored(Settings(data_dir=tmp_path / "data"), tmp_path / "trained")
    artifact = Artifact(path=adapter.path, size_bytes=7, hash="sha256:0")
    job = jobs.add(config=plan().config, status=JobStatus.COMPLETED, artifact=artifact)
    jobs.jobs = {JOB: job.model_copy(update={"job_id": JOB})}
    return JOB


def settled(client: Client) -> Any:
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        adapter = client.get(f"/api/v1/adapters/{ADAPTER}").json()
        if adapter["registries"] and adapter["registries"][0]["status"] != "pending":
            return adapter
        time.sleep(0.1)
    raise AssertionError("nothing came of it")


def test_an_adapter_is_published_behind_the_callers_back(studio: Client, made: str, hub: UploadHub) -> None:
    refused = studio.post(f"/api/v1/adapters/{ADAPTER}/publish", json={"registries": [REGISTRY]})
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "PLATFORM_NOT_CONNECTED"
    assert refused.json()["error"]["details"]["field"] == "registries.0"
    studio.post("/api/v1/platforms/huggingface/connect", json={"credentials": {"api_key": GOOD}})
    asked = studio.post(f"/api/v1/adapters/{ADAPTER}/publish", json={"registries": [REGISTRY]})
    assert (asked.status_code, asked.json()["registry_url"]) == (202, None)
    assert [one["status"] for one in asked.json()["registries"]] == ["pending"]
    adapter = settled(studio)
    assert adapter["registries"][0]["revision"] == hub.repositories["me/my-adapter"].head.oid
    assert adapter["registry_url"] == adapter["registries"][0]["url"]
    (listed,) = studio.get("/api/v1/adapters").json()["adapters"]
    assert listed["registry_url"] == adapter["registry_url"]
    assert listed["lineage"] is None
    assert adapter["lineage"]["dataset"]["sha256"] == "e" * 64


@pytest.mark.parametrize(
    ("registries", "field"),
    [
        ([], "registries"),
        ([{"kind": "hub"}], "registries.0"),
        ([{"kind": "huggingface", "repository": "no-owner"}], "registries.0.huggingface.repository"),
        ([{"kind": "s3", "url": "https://bucket"}], "registries.0.s3.url"),
        ([{"kind": "s3", "url": "s3://bucket/a"}, {"kind": "s3", "url": "s3://bucket/a/"}], "registries.1"),
    ],
)
def test_a_registry_that_cannot_be_is_refused_by_its_field(
    connect: Connect, made: str, registries: Any, field: str
) -> None:
    refused = connect().post(f"/api/v1/adapters/{ADAPTER}/publish", json={"registries": registries})
    assert (refused.status_code, refused.json()["error"]["details"]["field"]) == (400, field)


def test_a_job_is_reproduced_from_its_lineage_alone(studio: Client, made: str, jobs: JobsInMemory) -> None:
    answer = studio.post(f"/api/v1/jobs/{made}/reproduce")
    assert answer.status_code == 201
    again = jobs.jobs[answer.json()["job_id"]]
    assert again.parent_job_id == made
    given = again.config.model_dump(mode="json", exclude_unset=True)
    pinned = {"model_revision": "c" * 40, "dataset_sha256": "e" * 64, "force": True}
    assert given == CONFIG | pinned
    assert answer.json()["differences"]["torch"]["then"] == "2.0.0"


def test_a_lineage_from_elsewhere_is_enough_and_an_incomplete_one_is_refused(
    studio: Client, made: str, jobs: JobsInMemory
) -> None:
    lineage = json.loads(studio.get(f"/api/v1/adapters/{ADAPTER}/download?file=lineage.json").content)
    jobs.jobs.clear()
    answer = studio.post("/api/v1/jobs/reproduce", json={"lineage": lineage})
    assert answer.status_code == 201
    assert jobs.jobs[answer.json()["job_id"]].config.dataset_sha256 == "e" * 64
    del lineage["dataset"]
    refused = studio.post("/api/v1/jobs/reproduce", json={"lineage": lineage})
    assert (refused.status_code, refused.json()["error"]["details"]["field"]) == (400, "lineage.dataset")


def test_a_job_without_a_lineage_says_what_to_do_instead(client: Client, jobs: JobsInMemory) -> None:
    refused = client.post(f"/api/v1/jobs/{jobs.add().job_id}/reproduce")
    assert refused.status_code == 409
    assert "Clone" in refused.json()["error"]["message"]
