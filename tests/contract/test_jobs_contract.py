"""What users were promised of jobs: every example of the API's document, as a table."""

from datetime import timedelta
from typing import Any

import pytest

from peft_studio.config import TrainingConfig
from peft_studio.events import Event, Failure, Log, Metrics, Status
from peft_studio.jobs import Artifact, Job, JobStatus, Phase
from tests.contract.shapes import HASH, INTEGER, NUMBER, TEXT, TIME, TRUE, Shape, differences
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.studio_in_memory import START, JobsInMemory

JOB = "job_" + "0f" * 16
REQUEST: dict[str, Any] = {
    "base_model": "meta-llama/Llama-2-7b-hf",
    "model_source": "huggingface",
    "algorithm": "lora",
    "rank": 8,
    "alpha": 16,
    "dropout": 0.05,
    "target_modules": ["q_proj", "v_proj"],
    "quantization": "int4",
    "learning_rate": 2e-4,
    "batch_size": 4,
    "gradient_accumulation_steps": 4,
    "num_epochs": 3,
    "warmup_steps": 100,
    "provider": "runpod",
    "resource_id": "gpu-rtx4090",
    "dataset_path": "/path/to/dataset.json",
    "validation_split": 0.1,
    "experiment_tracker": "wandb",
    "project_name": "my-finetuning",
    "output_dir": "./output",
    "checkpoint_steps": 100,
}
CONFIG: Shape = {
    **dict.fromkeys(["base_model", "model_source", "algorithm", "quantization", "provider", "resource_id"], TEXT),
    **dict.fromkeys(["dataset_path", "experiment_tracker", "project_name", "output_dir"], TEXT),
    **dict.fromkeys(["rank", "batch_size", "gradient_accumulation_steps", "num_epochs"], INTEGER),
    **dict.fromkeys(["warmup_steps", "checkpoint_steps"], INTEGER),
    **dict.fromkeys(["alpha", "dropout", "learning_rate", "validation_split"], NUMBER),
    "target_modules": [TEXT],
}
LOSSES: Shape = {"loss": NUMBER, "learning_rate": NUMBER, "epoch": NUMBER}

ANSWERS: list[tuple[str, str, dict[str, Any] | None, int, Shape]] = [
    (
        *("POST", "/jobs", {"config": REQUEST}, 201),
        {
            "job_id": TEXT,
            "status": "pending",
            "created_at": TIME,
            "estimated_cost": NUMBER,
            "estimated_duration_minutes": NUMBER,
        },
    ),
    (
        *("GET", "/jobs?status=running&provider=runpod&limit=5", None, 200),
        {
            "jobs": [
                {
                    "job_id": TEXT,
                    "config": CONFIG,
                    "status": "running",
                    "progress": NUMBER,
                    "created_at": TIME,
                    "started_at": TIME,
                    "metrics": LOSSES,
                }
            ],
            "total": INTEGER,
        },
    ),
    (
        *("GET", "/jobs/COMPLETED", None, 200),
        {
            "job_id": TEXT,
            "config": CONFIG,
            "status": "completed",
            "progress": NUMBER,
            "created_at": TIME,
            "started_at": TIME,
            "completed_at": TIME,
            "duration_seconds": NUMBER,
            "cost": NUMBER,
            "metrics": {"final_loss": NUMBER, "best_loss": NUMBER, "total_steps": INTEGER},
            "artifact": {"path": TEXT, "size_bytes": INTEGER, "hash": HASH},
        },
    ),
    ("POST", "/jobs/RUNNING/cancel", None, 200, {"success": True, "job_id": JOB, "status": "cancelled"}),
    ("GET", "/jobs/RUNNING/logs?lines=2", None, 200, {"logs": [{"timestamp": TIME, "level": "INFO", "message": TEXT}]}),
]

MESSAGES: list[tuple[Event, Shape]] = [
    (
        Status(job_id=JOB, status=JobStatus.RUNNING),
        {"type": "status", "job_id": JOB, "status": "running", "timestamp": TIME},
    ),
    (
        Metrics(job_id=JOB, metrics={"loss": 0.523, "learning_rate": 0.0002, "epoch": 1.5, "step": 150}),
        {"type": "metrics", "job_id": JOB, "metrics": {**LOSSES, "step": INTEGER}, "timestamp": TIME},
    ),
    (
        Log(job_id=JOB, message="Epoch 1/3 completed"),
        {"type": "log", "job_id": JOB, "level": "INFO", "message": "Epoch 1/3 completed", "timestamp": TIME},
    ),
    (
        Failure(job_id=JOB, error="Out of memory", details="GPU memory exceeded"),
        {"type": "error", "job_id": JOB, "error": "Out of memory", "details": "GPU memory exceeded", "timestamp": TIME},
    ),
]

ERROR: Shape = {"error": {"code": TEXT, "message": TEXT, "details": {}}}
CODES: list[tuple[str, str, dict[str, Any] | None, str | None, int, str]] = [
    ("POST", "/jobs", {"config": REQUEST | {"learning_rate": 1.0}}, "writes", 400, "INVALID_CONFIG"),
    ("GET", "/jobs/job_abc123", None, "writes", 404, "JOB_NOT_FOUND"),
    ("GET", "/jobs", None, None, 401, "AUTHENTICATION_FAILED"),
    ("GET", "/jobs", None, "nobody's", 401, "AUTHENTICATION_FAILED"),
]


def running(jobs: JobsInMemory) -> Job:
    metrics = {"loss": 0.523, "learning_rate": 0.0002, "epoch": 1.5}
    job = jobs.add(
        job_id=JOB,
        config=TrainingConfig.model_validate(REQUEST),
        metrics=metrics,
        status=JobStatus.RUNNING,
        phase=Phase.TRAINING,
        progress=0.45,
        started_at=START,
    )
    for line in ("Starting training...", "Epoch 1/3, Step 10/1000, Loss: 0.523"):
        jobs.say(Log(job_id=JOB, message=line))
    return job


def completed(jobs: JobsInMemory) -> Job:
    metrics = {"final_loss": 0.234, "best_loss": 0.221, "total_steps": 1000}
    return jobs.add(
        config=TrainingConfig.model_validate(REQUEST),
        metrics=metrics,
        status=JobStatus.COMPLETED,
        phase=Phase.DONE,
        progress=1.0,
        started_at=START,
        completed_at=START + timedelta(seconds=2640),
        duration_seconds=2640.0,
        cost=2.45,
        artifact=Artifact(path="/path/to/adapter.safetensors", size_bytes=16777216, hash="sha256:abc123"),
    )


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "shape"), ANSWERS, ids=[f"{row[0]} {row[1]}" for row in ANSWERS]
)
def test_an_answer_has_what_was_promised(
    client: Client, jobs: JobsInMemory, method: str, path: str, body: Any, status: int, shape: Shape
) -> None:
    path = path.replace("RUNNING", running(jobs).job_id).replace("COMPLETED", completed(jobs).job_id)
    answer = client.request(method, "/api/v1" + path, json=body)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/json"
    assert differences(shape, answer.json()) == []


def test_the_configuration_that_was_sent_is_the_one_that_comes_back(client: Client) -> None:
    job_id = client.post("/api/v1/jobs", json={"config": REQUEST}).json()["job_id"]
    config = client.get(f"/api/v1/jobs/{job_id}").json()["config"]
    assert {name: config[name] for name in REQUEST} == REQUEST


@pytest.mark.parametrize(("event", "shape"), MESSAGES, ids=[event.type for event, _ in MESSAGES])
def test_a_message_has_what_was_promised(client: Client, jobs: JobsInMemory, event: Event, shape: Shape) -> None:
    running(jobs)
    jobs.events[JOB] = [event]
    with client.websocket_connect(f"/ws/jobs/{JOB}") as socket:
        assert differences(shape, socket.receive_json(timeout=10)) == []


@pytest.mark.parametrize(("method", "path", "body", "key", "status", "code"), CODES)
def test_an_error_has_the_promised_shape_and_code(
    connect: Connect, method: str, path: str, body: Any, key: str | None, status: int, code: str
) -> None:
    answer = connect(key).request(method, "/api/v1" + path, json=body)
    assert answer.status_code == status
    assert differences(ERROR, answer.json()) == []
    assert answer.json().keys() == {"error"}
    assert answer.json()["error"]["code"] == code


def test_a_wrong_value_is_explained_as_promised(client: Client) -> None:
    answer = client.post("/api/v1/jobs", json={"config": REQUEST | {"learning_rate": 1.0}})
    details = {"field": "learning_rate", "issue": "Must be between 1e-6 and 1e-2"}
    assert differences({"error": {"details": details}}, answer.json()) == []


def test_a_hundred_requests_a_minute_are_answered_and_no_more(connect: Connect) -> None:
    client = connect(requests_per_minute=100)
    statuses = [client.get("/api/v1/jobs").status_code for _ in range(101)]
    assert statuses == [200] * 100 + [429]
    assert client.get("/api/v1/jobs").json()["error"]["code"] == "RATE_LIMIT_EXCEEDED"


@pytest.mark.parametrize(
    ("shape", "value", "found"),
    [
        ({"a": TEXT}, {}, ["$.a: missing"]),
        ({"a": TEXT}, {"a": "x", "b": 1}, []),
        ({"a": NUMBER}, {"a": True}, [f"$.a: True is none of {NUMBER}"]),
        ({"a": TRUE}, {"a": True}, []),
        ([{"a": TIME}], [{"a": "2024-01-15"}], [f"$[0].a: '2024-01-15' is not {TIME.pattern}"]),
        ([TEXT], [], ["$: [] is no list with something in it"]),
        ({"a": True}, {"a": 1}, ["$.a: 1 is not True"]),
    ],
)
def test_the_table_notices(shape: Shape, value: Any, found: list[str]) -> None:
    assert differences(shape, value) == found
