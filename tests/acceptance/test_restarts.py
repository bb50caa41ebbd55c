"""Any process may be started anew between any two requests, and nobody can tell from the answers."""

import time
from collections.abc import Iterator

import httpx
import pytest

from benchmarks.studio import Studio
from peft_studio.jobs import JobStatus
from tests.acceptance.conftest import eventually, logs
from tests.acceptance.jobs import follow, is_ready, job, part, short_job, submit

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]
READY_SECONDS = 60
PROGRAMS = ["bin/postgres", "prefect.server", "infra.worker", "api.app"]
ROWS = '{"prompt": "What is red?", "completion": " A cherry."}\n' * 5


@pytest.fixture(scope="module")
def paths(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Everything there is to be read of a finished job, its adapter and a data set."""
    rows = tmp_path_factory.mktemp("rows") / "restarts.jsonl"
    rows.write_text(ROWS)
    job_id = submit(studio, max_steps=10)
    follow(studio, job_id)
    assert job(studio, job_id).status is JobStatus.COMPLETED, logs(studio.data_dir)
    with studio.client() as client:
        data_set, adapter = client.upload_dataset(rows), client.list_adapters().adapters[0]
    return [
        *("/jobs?limit=5", f"/jobs/{job_id}", f"/jobs/{job_id}/logs", f"/jobs/{job_id}/metrics"),
        *(f"/jobs/{job_id}/checkpoints", f"/jobs/{job_id}/events", f"/experiments/{job_id}", "/experiments?limit=5"),
        *("/adapters", f"/adapters/{adapter.id}", "/datasets", f"/datasets/{data_set.dataset_id}", "/deployments"),
        *("/platforms", "/resources", "/jobs/job_00000000000000000000000000000000"),
    ]


@pytest.fixture
def client(studio: Studio) -> Iterator[httpx.Client]:
    """Somebody with a key of their own, since a key may only ask so often."""
    key = studio.new_key(f"restarts-{time.time_ns()}")
    with httpx.Client(
        base_url=f"{studio.url}/api/v1", headers={"Authorization": f"Bearer {key}"}, timeout=30
    ) as client:
        yield client


def answers(client: httpx.Client, paths: list[str]) -> dict[str, tuple[int, str]]:
    found = {path: client.get(path) for path in paths}
    return {path: (answer.status_code, answer.text) for path, answer in found.items()}


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_answer_changes(studio: Studio, client: httpx.Client, paths: list[str], program: str) -> None:
    body, once = {"config": short_job(max_steps=1)}, {"Idempotency-Key": f"restart {time.time_ns()}"}
    created = client.post("/jobs", json=body, headers=once).raise_for_status().json()
    follow(studio, created["job_id"])
    before = answers(client, paths)
    part(studio, program).kill()
    assert eventually(lambda: is_ready(studio), READY_SECONDS), logs(studio.data_dir)
    assert answers(client, paths) == before
    assert client.post("/jobs", json=body, headers=once).json() == created
