"""Checkpoints, the whole history of metrics, and events as Server-Sent Events."""

import json
from pathlib import Path
from typing import Any

import pytest

from peft_studio.events import Log, Metrics, Status
from peft_studio.jobs import JobStatus
from peft_studio.run_dir import RunDir
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.studio_in_memory import START, JobsInMemory


def stream(client: Client, path: str, **headers: str) -> list[dict[str, str]]:
    """Every event of a stream, to its end, as its fields."""
    with client.stream("GET", f"/api/v1{path}", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        text = answer.read().decode()
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.strip().split("\n\n")]
    assert "retry" in blocks[0]
    return blocks[1:]


def test_a_job_has_the_checkpoints_that_lie_in_its_run_directory(
    connect: Connect, jobs: JobsInMemory, tmp_path: Path
) -> None:
    client, job = connect(data_dir=tmp_path), jobs.add()
    path = f"/api/v1/jobs/{job.job_id}/checkpoints"
    assert client.get(path).json() == {"checkpoints": []}
    run = RunDir(tmp_path / "runs" / job.job_id)
    for step, whole in ((20, True), (3, True), (30, False)):
        folder = run.checkpoints / f"step-{step}"
        folder.mkdir(parents=True)
        (folder / "progress.json").write_text(json.dumps({"step": step, "epoch": step / 10, "loss": 0.5, "tokens": 7}))
        (folder / "adapter_model.safetensors").write_bytes(b"x" * 1000)
        if whole:
            (folder / "manifest.json").write_text("{}")
    found = client.get(path).json()["checkpoints"]
    assert [checkpoint["step"] for checkpoint in found] == [3, 20]
    assert found[0].keys() == {"step", "epoch", "path", "size_bytes", "created_at", "loss"}
    assert (found[1]["epoch"], found[1]["loss"], found[1]["path"]) == (2.0, 0.5, str(run.checkpoints / "step-20"))
    assert found[1]["size_bytes"] > 1000


def test_the_whole_history_of_metrics_is_there_and_can_be_had_from_a_step_on(
    connect: Connect, jobs: JobsInMemory, tmp_path: Path
) -> None:
    client, job = connect(data_dir=tmp_path), jobs.add()
    path = f"/api/v1/jobs/{job.job_id}/metrics"
    assert client.get(path).json() == {"job_id": job.job_id, "metrics": []}
    run = RunDir(tmp_path / "runs" / job.job_id)
    for step in range(1, 501):
        numbers = {"step": step, "epoch": step / 100, "loss": 1 / step, "total_steps": 500, "grad_norm": 0.25}
        run.append(Metrics(job_id=job.job_id, metrics=numbers, timestamp=START))
        run.append(Log(job_id=job.job_id, message="not a number"))
    run.append(Metrics(job_id=job.job_id, metrics={"step": 500, "epoch": 5, "eval_loss": 0.5}, timestamp=START))
    found = client.get(path).json()["metrics"]
    assert len(found) == 501
    assert found[1] == {
        "step": 2,
        "epoch": 0.02,
        "loss": 0.5,
        "total_steps": 500,
        "grad_norm": 0.25,
        "timestamp": "2024-01-15T10:30:00Z",
    }
    assert found[-1] == {"step": 500, "epoch": 5.0, "eval_loss": 0.5, "timestamp": "2024-01-15T10:30:00Z"}
    later = client.get(path, params={"after_step": 498}).json()["metrics"]
    assert [entry["step"] for entry in later] == [499, 500, 500]


def test_a_stream_tells_what_the_websocket_tells_and_ends_with_the_job(client: Client, jobs: JobsInMemory) -> None:
    job = jobs.add(status=JobStatus.RUNNING)
    jobs.say(Metrics(job_id=job.job_id, metrics={"step": 1.0, "loss": 0.5}, timestamp=START))
    jobs.say(Log(job_id=job.job_id, message="two\nlines", timestamp=START))
    jobs.say(Status(job_id=job.job_id, status=JobStatus.COMPLETED, timestamp=START))
    events = stream(client, f"/jobs/{job.job_id}/events")
    assert [event["event"] for event in events] == ["metrics", "log", "status"]
    assert [event["id"] for event in events] == ["1", "2", "3"]
    with client.websocket_connect(f"/ws/jobs/{job.job_id}") as socket:
        assert [json.loads(event["data"]) for event in events] == [socket.receive_json(timeout=10) for _ in range(3)]


@pytest.mark.parametrize(
    "resume", [{"Last-Event-ID": "1"}, {"Last-Event-ID": "1", "query": "?after=0"}, {"query": "?after=1"}]
)
def test_a_stream_goes_on_behind_the_last_event_seen(
    client: Client, jobs: JobsInMemory, resume: dict[str, str]
) -> None:
    job = jobs.add()
    for step in (1, 2):
        jobs.say(Metrics(job_id=job.job_id, metrics={"step": step}))
    jobs.say(Status(job_id=job.job_id, status=JobStatus.FAILED))
    query = resume.pop("query", "")
    assert [event["id"] for event in stream(client, f"/jobs/{job.job_id}/events{query}", **resume)] == ["2", "3"]


def test_a_stream_counts_as_one_of_the_keys_connections(connect: Connect, jobs: JobsInMemory) -> None:
    client, job = connect(connections_per_key=1), jobs.add(status=JobStatus.RUNNING)
    with client.websocket_connect(f"/ws/jobs/{job.job_id}"):
        refused = client.get(f"/api/v1/jobs/{job.job_id}/events")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "RATE_LIMIT_EXCEEDED")


def test_a_stream_that_has_ended_counts_no_longer(connect: Connect, jobs: JobsInMemory) -> None:
    client, job = connect(connections_per_key=1), jobs.add()
    jobs.say(Status(job_id=job.job_id, status=JobStatus.COMPLETED))
    for _ in range(3):
        assert len(stream(client, f"/jobs/{job.job_id}/events")) == 1
    assert jobs.followers == 0


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("metrics?after_step=-1", "after_step"),
        ("metrics?after_step=x", "after_step"),
        ("events?after=x", "after"),
        ("events?after=" + "9" * 30, "after"),
    ],
)
def test_a_wrong_parameter_is_named(client: Client, jobs: JobsInMemory, path: str, field: str) -> None:
    refused = client.get(f"/api/v1/jobs/{jobs.add().job_id}/{path}")
    assert refused.status_code == 400
    assert refused.json()["error"]["details"]["field"] == field


def test_a_wrong_last_event_id_is_named(client: Client, jobs: JobsInMemory) -> None:
    refused: Any = client.get(f"/api/v1/jobs/{jobs.add().job_id}/events", headers={"Last-Event-ID": "x"})
    assert (refused.status_code, refused.json()["error"]["details"]["field"]) == (400, "Last-Event-ID")


@pytest.mark.parametrize("what", ["checkpoints", "metrics", "events"])
def test_there_must_be_such_a_job(client: Client, what: str) -> None:
    missing = client.get(f"/api/v1/jobs/job_{'0' * 32}/{what}")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "JOB_NOT_FOUND")
