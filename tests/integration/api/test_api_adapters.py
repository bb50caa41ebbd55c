"""Adapters over HTTP: what completed jobs have made, as long as it is there."""

import shutil
from pathlib import Path

import pytest

from infra.adapters.store import adapter_id_of
from peft_studio.jobs import JobStatus
from tests.integration.api.fixtures import Client
from tests.integration.api.machines import made
from tests.integration.api.studio_in_memory import JobsInMemory


def listed(client: Client, query: str = "") -> list[str]:
    return [adapter["job_id"] for adapter in client.get("/api/v1/adapters" + query).json()["adapters"]]


def test_an_adapter_is_found_by_its_id(client: Client, jobs: JobsInMemory, tmp_path: Path) -> None:
    job = made(jobs, tmp_path, rank=4, algorithm="dora")
    adapter = client.get(f"/api/v1/adapters/{adapter_id_of(job.job_id)}").json()
    assert adapter == {
        "id": adapter_id_of(job.job_id),
        "job_id": job.job_id,
        "name": "model-dora",
        "base_model": "org/model",
        "algorithm": "dora",
        "objective": "sft",
        "path": job.artifact.path if job.artifact else None,
        "size_bytes": 7,
        "created_at": "2024-01-15T10:30:00Z",
        "metadata": {"rank": 4, "alpha": 16.0, "target_modules": ["q_proj", "v_proj"]},
        "registries": [],
    }
    listed = {**adapter, "registry_url": None, "lineage": None}
    assert client.get("/api/v1/adapters").json() == {"adapters": [listed], "next_cursor": None}


def test_an_adapter_is_called_as_its_project(client: Client, jobs: JobsInMemory, tmp_path: Path) -> None:
    job = made(jobs, tmp_path, project_name="my-finetuning")
    assert client.get(f"/api/v1/adapters/{adapter_id_of(job.job_id)}").json()["name"] == "my-finetuning"


def test_adapters_of_completed_jobs_are_listed_newest_first(client: Client, jobs: JobsInMemory, tmp_path: Path) -> None:
    first, second = made(jobs, tmp_path), made(jobs, tmp_path)
    waiting = jobs.add()
    assert listed(client) == [second.job_id, first.job_id]
    assert listed(client, "?limit=1") == [second.job_id]
    assert listed(client, f"?job_id={first.job_id}") == [first.job_id]
    assert listed(client, f"?job_id={waiting.job_id}") == []


def test_adapters_behind_many_that_are_gone_are_found(client: Client, jobs: JobsInMemory, tmp_path: Path) -> None:
    old = made(jobs, tmp_path)
    for _ in range(250):
        jobs.add(status=JobStatus.COMPLETED)
    assert listed(client) == [old.job_id]


def test_an_adapter_whose_file_is_gone_is_not_shown(client: Client, jobs: JobsInMemory, tmp_path: Path) -> None:
    job = made(jobs, tmp_path)
    shutil.rmtree(tmp_path / "adapters" / job.job_id)
    assert listed(client) == listed(client, f"?job_id={job.job_id}") == []
    assert client.get(f"/api/v1/adapters/{adapter_id_of(job.job_id)}").status_code == 404


@pytest.mark.parametrize("name", ["adapter_" + "0" * 32, "adapter_", "0" * 32, "job_" + "0" * 32])
def test_an_unknown_adapter_is_not_found(client: Client, name: str) -> None:
    answer = client.get(f"/api/v1/adapters/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "NOT_FOUND"
    assert answer.json()["error"]["details"] == {"adapter_id": name}


def test_a_job_that_is_still_at_work_has_no_adapter(client: Client, jobs: JobsInMemory) -> None:
    job = jobs.add(status=JobStatus.RUNNING)
    assert client.get(f"/api/v1/adapters/{adapter_id_of(job.job_id)}").status_code == 404


def test_adapters_of_an_unknown_job_are_refused(client: Client) -> None:
    answer = client.get("/api/v1/adapters?job_id=job_abc123")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "JOB_NOT_FOUND"


@pytest.mark.parametrize("limit", [0, 101])
def test_a_limit_has_limits(client: Client, limit: int) -> None:
    answer = client.get(f"/api/v1/adapters?limit={limit}")
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["field"] == "limit"
