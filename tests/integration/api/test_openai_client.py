"""OpenAI's own client against the real API: what was written for OpenAI moves here by another base_url."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from openai import (
    AuthenticationError,
    BadRequestError,
    ConflictError,
    NotFoundError,
    OpenAI,
    PermissionDeniedError,
)

from api.app import create_app
from infra.settings import Settings
from peft_studio.config import ModelSource
from peft_studio.events import Failure, Log, Metrics, Status
from peft_studio.jobs import JobStatus, Phase, TrainingSummary
from peft_studio.objectives import Objective
from tests.integration.api.studio_in_memory import START, JobsInMemory, KeysInMemory
from tests.loopback import on_loopback

CHAT = b"".join(
    json.dumps({"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}!"}]}).encode()
    + b"\n"
    for n in range(12)
)


@pytest.fixture
def jobs() -> JobsInMemory:
    return JobsInMemory()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


@pytest.fixture
def address(jobs: JobsInMemory, settings: Settings) -> Iterator[str]:
    with on_loopback(create_app(jobs, KeysInMemory(), settings, control=jobs)) as url:
        yield f"{url}/v1"


@pytest.fixture
def client(address: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=address, api_key="writes", max_retries=0) as client:
        yield client


def uploaded(client: OpenAI, content: bytes = CHAT) -> str:
    return client.files.create(file=("rows.jsonl", content), purpose="fine-tune").id


def test_a_file_is_uploaded_looked_at_and_deleted(client: OpenAI) -> None:
    file = client.files.create(file=("rows.jsonl", CHAT), purpose="fine-tune")
    assert (file.filename, file.bytes, file.purpose, file.status) == ("rows.jsonl", len(CHAT), "fine-tune", "processed")
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == CHAT
    ids = [file.id, *(uploaded(client) for _ in range(2))]
    listed = list(client.files.list(limit=2))  # in two pages
    assert [one.id for one in listed] == sorted(ids, reverse=True)
    assert list(client.files.list(purpose="batch")) == []
    assert client.files.delete(file.id).deleted
    with pytest.raises(NotFoundError) as missing:
        client.files.retrieve(file.id)
    assert missing.value.body is not None and missing.value.code == "not_found"


def test_a_file_that_cannot_be_trained_on_is_refused_with_its_row(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        uploaded(client, CHAT + b'{"messages": []}\n')
    assert refused.value.param == "file" and "row 13" in refused.value.message.lower()
    with pytest.raises(BadRequestError) as refused:
        client.files.create(file=("rows.jsonl", CHAT), purpose="assistants")
    assert refused.value.param == "purpose"
    assert list(client.files.list()) == []


def test_a_job_is_ordered_as_at_openai(client: OpenAI, jobs: JobsInMemory) -> None:
    file = uploaded(client)
    ordered = client.fine_tuning.jobs.create(
        model="local:demo/model",
        training_file=file,
        suffix="triage",
        seed=7,
        metadata={"team": "support"},
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 12, "learning_rate_multiplier": 0.5}},
        },
        extra_body={"studio": {"rank": 4, "provider": "runpod", "max_cost": 2.0}},
    )
    assert (ordered.status, ordered.model, ordered.training_file) == ("queued", "local:demo/model", file)
    assert (ordered.seed, ordered.metadata, ordered.fine_tuned_model) == (7, {"team": "support"}, None)
    assert ordered.hyperparameters.to_dict() == {"n_epochs": 2, "batch_size": 12, "learning_rate_multiplier": 0.5}
    config = jobs.jobs["job_" + ordered.id.removeprefix("ftjob-")].config
    assert (config.base_model, config.model_source) == ("demo/model", ModelSource.LOCAL)
    assert config.dataset_path == "dataset_" + file.removeprefix("file-")
    assert (config.batch_size, config.gradient_accumulation_steps) == (6, 2)
    assert (config.num_epochs, config.learning_rate, config.project_name) == (2, 1e-4, "triage")
    assert (config.rank, config.provider, config.max_cost) == (4, "runpod", 2.0)
    assert jobs.submitted_by == [KeysInMemory().known["writes"].id]


def test_preferences_and_a_tracker_are_ordered_as_at_openai(client: OpenAI, jobs: JobsInMemory) -> None:
    row = {
        "input": {"messages": [{"role": "user", "content": "Well?"}]},
        "preferred_output": [{"role": "assistant", "content": "Yes."}],
        "non_preferred_output": [{"role": "assistant", "content": "No."}],
    }
    ordered = client.fine_tuning.jobs.create(
        model="org/model",
        training_file=uploaded(client, json.dumps(row).encode()),
        method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": "auto"}}},
        integrations=[{"type": "wandb", "wandb": {"project": "mine"}}],
    )
    [job] = jobs.jobs.values()
    assert (job.config.objective, job.config.objective_option("beta")) == (Objective.DPO, 0.2)
    assert (job.config.experiment_tracker, job.config.project_name) == ("wandb", "mine")
    assert ordered.method is not None and ordered.method.dpo is not None
    assert ordered.method.dpo.hyperparameters is not None and ordered.method.dpo.hyperparameters.beta == 0.2
    assert ordered.integrations is not None and ordered.integrations[0].wandb.project == "mine"


@pytest.mark.parametrize(
    ("order", "param"),
    [
        ({"training_file": "file-abc"}, "training_file"),
        ({"validation_file": "file-" + "0" * 32}, "validation_file"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"learning_rate_multiplier": 0.001}}, "hyperparameters.learning_rate_multiplier"),
        ({"method": {"type": "reinforcement"}}, "method.type"),
        ({"metadata": {f"k{n}": "v" for n in range(17)}}, "metadata"),
        ({"extra_body": {"studio": {"rank": 0}}}, "rank"),
        ({"extra_body": {"purpose": 1}}, "purpose"),
        ({"model": ""}, "model"),
    ],
)
def test_an_order_that_cannot_be_carried_out_names_its_parameter(
    client: OpenAI, jobs: JobsInMemory, order: dict[str, Any], param: str
) -> None:
    with pytest.raises((BadRequestError, NotFoundError)) as refused:
        client.fine_tuning.jobs.create(**{"model": "org/model", "training_file": uploaded(client)} | order)
    assert refused.value.param is not None and refused.value.param.startswith(param)
    assert not jobs.jobs


def test_jobs_are_listed_in_pages_and_by_their_metadata(client: OpenAI) -> None:
    file = uploaded(client)
    made = [
        client.fine_tuning.jobs.create(model="org/model", training_file=file, metadata={"run": str(number % 2)}).id
        for number in range(5)
    ]
    assert [job.id for job in client.fine_tuning.jobs.list(limit=2)] == made[::-1]
    assert [job.id for job in client.fine_tuning.jobs.list(limit=1, metadata={"run": "1"})] == [made[3], made[1]]


def test_a_job_is_cancelled_paused_and_resumed(client: OpenAI) -> None:
    job = client.fine_tuning.jobs.create(model="org/model", training_file=uploaded(client))
    assert str(client.fine_tuning.jobs.pause(job.id).status) == "paused"
    assert client.fine_tuning.jobs.resume(job.id).status == "queued"
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    with pytest.raises(ConflictError):
        client.fine_tuning.jobs.cancel(job.id)
    with pytest.raises(NotFoundError) as missing:
        client.fine_tuning.jobs.retrieve("ftjob-" + "0" * 32)
    assert missing.value.code == "job_not_found"
    with pytest.raises(NotFoundError):
        client.fine_tuning.jobs.retrieve("ftjob-nonsense")


def test_a_job_that_is_done_tells_its_model_its_events_and_its_checkpoints(
    client: OpenAI, jobs: JobsInMemory, settings: Settings
) -> None:
    ordered = client.fine_tuning.jobs.create(model="org/model", training_file=uploaded(client))
    job_id = "job_" + ordered.id.removeprefix("ftjob-")
    run = settings.run_dir(job_id)
    run.append(Status(job_id=job_id, status=JobStatus.RUNNING, phase=Phase.TRAINING))
    run.append(Metrics(job_id=job_id, metrics={"step": 3, "loss": 0.5, "epoch": 1}))
    run.append(Log(job_id=job_id, level="WARNING", message="Look out."))
    for step in (3, 6):
        folder = run.checkpoints / f"step-{step}"
        folder.mkdir(parents=True)
        (folder / "progress.json").write_text(json.dumps({"step": step, "epoch": 1.0, "loss": 0.5}))
        (folder / "manifest.json").write_text("{}")
    summary = TrainingSummary.model_validate(
        dict.fromkeys(TrainingSummary.model_fields, 0)
        | {"tokens": 1234, "resumed_at": [], "versions": {}}
        | {"eval_metrics": {}}
    )
    run.write("summary.json", summary)
    jobs.jobs[job_id] = jobs.jobs[job_id].model_copy(
        update={
            "status": JobStatus.COMPLETED,
            "adapter_id": "adapter_1",
            "completed_at": START + timedelta(minutes=5),
        }
    )
    done = client.fine_tuning.jobs.retrieve(ordered.id)
    assert (done.status, done.fine_tuned_model, done.trained_tokens) == ("succeeded", "adapter_1", 1234)
    assert done.finished_at == done.created_at + 300
    events = list(client.fine_tuning.jobs.list_events(ordered.id, limit=2))
    assert [event.message for event in events] == [
        "Look out.",
        "step=3, train_loss=0.5",
        "The job is running: training.",
    ]
    assert [(event.level, event.type) for event in events[:2]] == [("warn", "message"), ("info", "metrics")]
    assert events[1].data == {"step": 3, "train_loss": 0.5}
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(ordered.id, limit=1))
    assert [one.step_number for one in checkpoints] == [6, 3]
    assert checkpoints[0].fine_tuning_job_id == ordered.id


def test_a_job_that_failed_says_why(client: OpenAI, jobs: JobsInMemory) -> None:
    ordered = client.fine_tuning.jobs.create(model="org/model", training_file=uploaded(client))
    job_id = "job_" + ordered.id.removeprefix("ftjob-")
    failure = Failure(job_id=job_id, error="The loss is not a number.", details="Lower learning_rate.", code="DIVERGED")
    jobs.jobs[job_id] = jobs.jobs[job_id].model_copy(
        update={
            "status": JobStatus.FAILED,
            "error": failure.model_dump(include={"error", "details", "code"}),
        }
    )
    error = client.fine_tuning.jobs.retrieve(ordered.id).error
    assert error is not None
    assert (error.code, error.message) == ("DIVERGED", "The loss is not a number. Lower learning_rate.")


def test_keys_are_those_of_the_studio(client: OpenAI, address: str) -> None:
    with OpenAI(base_url=address, api_key="nobody's", max_retries=0) as stranger, pytest.raises(AuthenticationError):
        stranger.files.list()
    with OpenAI(base_url=address, api_key="reads", max_retries=0) as reader:
        assert list(reader.files.list()) == []
        with pytest.raises(PermissionDeniedError):
            uploaded(reader)
