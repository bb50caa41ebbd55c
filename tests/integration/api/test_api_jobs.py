"""Jobs over HTTP: created, listed, looked at, cancelled, their logs read."""

from typing import Any

import pytest

from peft_studio.config import TrainingConfig
from peft_studio.events import Log, Metrics
from peft_studio.jobs import JobStatus
from tests.integration.api.fixtures import Client
from tests.integration.api.studio_in_memory import CONFIG, START, JobsInMemory


def test_a_job_is_created_and_can_be_read_back(client: Client, jobs: JobsInMemory) -> None:
    created = client.post("/api/v1/jobs", json={"config": CONFIG | {"rank": 4}})
    assert created.status_code == 201
    assert created.json()["status"] == "pending"
    job = client.get(f"/api/v1/jobs/{created.json()['job_id']}").json()
    assert job["config"]["rank"] == 4
    assert job["config"]["base_model"] == CONFIG["base_model"]
    assert TrainingConfig.model_validate(job["config"]) == jobs.jobs[job["job_id"]].config


def test_the_same_idempotency_key_gives_the_same_job(client: Client) -> None:
    ids = {
        client.post("/api/v1/jobs", json={"config": CONFIG}, headers={"Idempotency-Key": "once"}).json()["job_id"]
        for _ in range(3)
    }
    assert len(ids) == 1
    assert client.post("/api/v1/jobs", json={"config": CONFIG}).json()["job_id"] not in ids


def test_json_may_be_declared_with_a_charset_or_not_at_all(client: Client) -> None:
    body = b'{"config": {"base_model": "m", "dataset_path": "d"}}'
    for headers in ({"Content-Type": "application/json; charset=utf-8"}, {}):
        assert client.post("/api/v1/jobs", content=body, headers=headers).status_code == 201


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [4, 3, 2, 1, 0]),
        ({"limit": 2}, [4, 3]),
        ({"limit": 2, "cursor": 3}, [2, 1]),
        ({"status": "running"}, [3, 1]),
        ({"provider": "runpod"}, [4]),
        ({"provider": "runpod", "status": "running"}, []),
        ({"project": "mine"}, [4]),
        ({"project": "another"}, []),
    ],
)
def test_jobs_are_listed_newest_first_and_filtered(
    client: Client, jobs: JobsInMemory, query: dict[str, Any], expected: list[int]
) -> None:
    rented = TrainingConfig.model_validate(CONFIG | {"provider": "runpod", "project_name": "mine"})
    made = [jobs.add(status=JobStatus.RUNNING if number % 2 else JobStatus.PENDING) for number in range(4)]
    made.append(jobs.add(config=rented))
    if "cursor" in query:
        query = query | {"cursor": made[query["cursor"]].job_id}
    page = client.get("/api/v1/jobs", params=query).json()
    assert [job["job_id"] for job in page["jobs"]] == [made[number].job_id for number in expected]
    unpaged = {name: value for name, value in query.items() if name not in ("limit", "cursor")}
    assert page["total"] == client.get("/api/v1/jobs", params=unpaged | {"limit": 100}).json()["total"]


def test_pages_follow_each_other_by_their_cursors(client: Client, jobs: JobsInMemory) -> None:
    made = [jobs.add().job_id for _ in range(5)]
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = client.get("/api/v1/jobs", params=query).json()
        seen += [job["job_id"] for job in page["jobs"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == made[::-1]


def test_an_unknown_cursor_is_refused(client: Client) -> None:
    answer = client.get("/api/v1/jobs", params={"cursor": "job_0"})
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["field"] == "cursor"


def test_twenty_jobs_are_listed_unless_more_are_asked_for(client: Client, jobs: JobsInMemory) -> None:
    for _ in range(30):
        jobs.add()
    assert len(client.get("/api/v1/jobs").json()["jobs"]) == 20
    assert client.get("/api/v1/jobs").json()["total"] == 30


def test_fields_of_the_contract_are_null_before_they_have_a_value_and_others_are_left_out(
    client: Client, jobs: JobsInMemory
) -> None:
    job = client.get(f"/api/v1/jobs/{jobs.add().job_id}").json()
    for name in ("started_at", "completed_at", "duration_seconds", "cost", "artifact"):
        assert job[name] is None
    for name in ("error", "evaluation", "reused_from", "endpoint"):
        assert name not in job
    assert job["config"]["resource_id"] is None
    assert "max_steps" not in job["config"]


def test_times_are_utc(client: Client, jobs: JobsInMemory) -> None:
    job = jobs.add(started_at=START.replace(microsecond=250_000))
    seen = client.get(f"/api/v1/jobs/{job.job_id}").json()
    assert seen["created_at"] == "2024-01-15T10:30:00Z"
    assert seen["started_at"] == "2024-01-15T10:30:00.250000Z"


def test_a_job_is_cancelled_once(client: Client, jobs: JobsInMemory) -> None:
    job = jobs.add(status=JobStatus.RUNNING)
    cancelled = client.post(f"/api/v1/jobs/{job.job_id}/cancel")
    assert cancelled.status_code == 200
    assert cancelled.json() == {"success": True, "job_id": job.job_id, "status": "cancelled"}
    again = client.post(f"/api/v1/jobs/{job.job_id}/cancel")
    assert again.status_code == 409
    assert again.json()["error"]["code"] == "CONFLICT"


def test_the_newest_log_lines_are_read_oldest_first(client: Client, jobs: JobsInMemory) -> None:
    job = jobs.add()
    for number in range(150):
        jobs.say(Log(job_id=job.job_id, message=f"line {number}", timestamp=START))
        jobs.say(Metrics(job_id=job.job_id, metrics={"loss": 1.0}))
    logs = client.get(f"/api/v1/jobs/{job.job_id}/logs").json()["logs"]
    assert [line["message"] for line in logs] == [f"line {number}" for number in range(50, 150)]
    logs = client.get(f"/api/v1/jobs/{job.job_id}/logs", params={"lines": 2}).json()["logs"]
    assert [line["message"] for line in logs] == ["line 148", "line 149"]


def test_connections_are_let_go_of_at_the_end(jobs: JobsInMemory, client: Client) -> None:
    client.__exit__()
    assert jobs.closed
    client.__enter__()
