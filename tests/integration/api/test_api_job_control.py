"""Pause, resume, retry, checkpoint, clone and plan over HTTP."""

import json
from pathlib import Path
from typing import Any

import pytest

from peft_studio.jobs import JobStatus, Phase
from peft_studio.run_dir import RunDir
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.studio_in_memory import CONFIG, JobsInMemory

DEMO: dict[str, Any] = {"base_model": "demo/model", "model_source": "local", "dataset_path": "demo/support.jsonl"}


def test_a_job_is_paused_and_resumed_once(client: Client, jobs: JobsInMemory) -> None:
    job = jobs.add(status=JobStatus.RUNNING, phase=Phase.TRAINING)
    paused = client.post(f"/api/v1/jobs/{job.job_id}/pause")
    assert paused.status_code == 200
    assert paused.json() == {"success": True, "job_id": job.job_id, "status": "pending", "phase": "paused"}
    assert client.post(f"/api/v1/jobs/{job.job_id}/pause").status_code == 409
    assert client.post(f"/api/v1/jobs/{job.job_id}/resume").json()["phase"] == "queued"
    refused = client.post(f"/api/v1/jobs/{job.job_id}/resume")
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "CONFLICT"


@pytest.mark.parametrize(
    ("status", "expected"), [("failed", 200), ("cancelled", 200), ("completed", 409), ("running", 409)]
)
def test_only_what_failed_or_was_cancelled_is_tried_again(
    client: Client, jobs: JobsInMemory, status: str, expected: int
) -> None:
    job = jobs.add(status=JobStatus(status))
    answer = client.post(f"/api/v1/jobs/{job.job_id}/retry")
    assert answer.status_code == expected
    assert jobs.jobs[job.job_id].status == ("pending" if expected == 200 else status)


def test_a_checkpoint_is_answered_with_where_it_is(client: Client, jobs: JobsInMemory) -> None:
    job = jobs.add(status=JobStatus.RUNNING, phase=Phase.TRAINING, metrics={"step": 7, "loss": 0.5})
    saved = client.post(f"/api/v1/jobs/{job.job_id}/checkpoint").json()
    assert saved["job_id"] == job.job_id
    assert saved["checkpoint"]["step"] == 7
    assert saved["checkpoint"]["created_at"] == "2024-01-15T10:30:00Z"
    assert client.post(f"/api/v1/jobs/{jobs.add().job_id}/checkpoint").status_code == 409


def test_a_clone_is_another_job_with_the_same_configuration_but_for_what_is_changed(
    client: Client, jobs: JobsInMemory
) -> None:
    original = client.post("/api/v1/jobs", json={"config": CONFIG | {"rank": 4, "seed": 7}}).json()["job_id"]
    same = client.post(f"/api/v1/jobs/{original}/clone")
    changed = client.post(f"/api/v1/jobs/{original}/clone", json={"config": {"rank": 16, "max_steps": 3}})
    assert (same.status_code, changed.status_code) == (201, 201)
    assert jobs.jobs[same.json()["job_id"]].config == jobs.jobs[original].config
    clone = client.get(f"/api/v1/jobs/{changed.json()['job_id']}").json()
    assert (clone["config"]["rank"], clone["config"]["max_steps"], clone["config"]["seed"]) == (16, 3, 7)
    assert clone["parent_job_id"] == original
    assert "parent_job_id" not in client.get(f"/api/v1/jobs/{original}").json()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"config": {"rank": 0}}, "rank"),
        ({"config": {"rnak": 8}}, "rnak"),
        ({"config": []}, "config"),
        ({"rank": 8}, "rank"),
        ([], "body"),
    ],
)
def test_a_clone_with_a_mistake_is_refused_and_starts_nothing(
    client: Client, jobs: JobsInMemory, body: Any, field: str
) -> None:
    job = jobs.add()
    refused = client.post(f"/api/v1/jobs/{job.job_id}/clone", json=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["details"]["field"] == field
    assert len(jobs.jobs) == 1


def test_a_plan_says_what_a_job_would_take_and_creates_none(
    connect: Connect, jobs: JobsInMemory, tmp_path: Path
) -> None:
    client = connect(data_dir=tmp_path)
    plan = client.post("/api/v1/jobs/plan", json={"config": DEMO | {"max_steps": 10}})
    assert plan.status_code == 200
    body = plan.json()
    assert (body["total_steps"], body["dataset"]["rows"], body["reused_from"]) == (10, 800, None)
    assert body["model"]["architecture"] == "LlamaForCausalLM"
    assert body["config"]["rank"] == 8
    assert jobs.jobs == {}
    wrong = client.post("/api/v1/jobs/plan", json={"config": DEMO | {"dataset_path": "/nowhere.jsonl"}})
    assert wrong.status_code == 400
    assert wrong.json()["error"]["details"]["field"] == "dataset_path"


def test_a_plan_names_the_job_whose_adapter_would_be_used(connect: Connect, tmp_path: Path) -> None:
    client = connect(data_dir=tmp_path)
    key = client.post("/api/v1/jobs/plan", json={"config": DEMO}).json()["cache_key"]
    trained = RunDir(tmp_path / "runs" / ("job_" + "ab" * 16))
    trained.adapter.mkdir(parents=True)
    (tmp_path / "results").mkdir()
    result = {"__class__": "tasks.train.Trained", "data": {"job_id": trained.job_id, "summary": {}}}
    cached = {"metadata": {}, "result": json.dumps(result)}
    (tmp_path / "results" / f"trained-{key}").write_text(json.dumps(cached))
    assert client.post("/api/v1/jobs/plan", json={"config": DEMO}).json()["reused_from"] == trained.job_id
    forced = client.post("/api/v1/jobs/plan", json={"config": DEMO | {"force": True}}).json()
    assert forced["reused_from"] is None
    trained.adapter.rmdir()
    assert client.post("/api/v1/jobs/plan", json={"config": DEMO}).json()["reused_from"] is None


@pytest.mark.parametrize("what", ["pause", "resume", "retry", "checkpoint", "clone"])
def test_what_changes_a_job_needs_a_job_and_a_key_that_may_write(
    connect: Connect, jobs: JobsInMemory, what: str
) -> None:
    missing = connect().post(f"/api/v1/jobs/job_{'0' * 32}/{what}")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "JOB_NOT_FOUND")
    job = jobs.add(status=JobStatus.RUNNING)
    assert connect("reads").post(f"/api/v1/jobs/{job.job_id}/{what}").status_code == 403
