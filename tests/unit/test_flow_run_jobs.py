"""A flow run, read as a job."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import StateType

from infra.jobs.flow_run_jobs import job_of, tags_of
from infra.jobs.reads import Run
from infra.settings import Settings
from peft_studio.config import TrainingConfig
from peft_studio.events import Failure, Metrics
from peft_studio.jobs import (
    Artifact,
    Conversion,
    Evaluation,
    HeldOut,
    JobResult,
    JobStatus,
    Phase,
    TerminationReason,
    TrainingSummary,
    job_id_of,
)

CONFIG = {"base_model": "some/model", "dataset_path": "rows.jsonl", "project_name": "p"}
BEGAN, ENDED = datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 1, 13, tzinfo=UTC)

RESULT = JobResult(
    adapter_id="adapter_1",
    artifact=Artifact(path="/a/adapter_model.safetensors", size_bytes=3, hash="sha256:00"),
    training=TrainingSummary(
        total_steps=10,
        epochs=1,
        final_loss=0.2,
        best_loss=0.1,
        train_rows=9,
        held_out_rows=1,
        tokens=100,
        supervised_tokens=50,
        tokens_per_second=10,
        seconds=10,
        peak_memory_mb=1,
        trainable_parameters=8,
    ),
    cost=2.45,
    reused_from="job_x",
    conversion=Conversion(target="vllm", format="lora", status=JobStatus.COMPLETED, export_id="export_1"),
)


def flow_run(state: StateType, **fields: Any) -> Run:
    return Run(
        id=uuid4(),
        name="a run",
        parameters=fields.pop("parameters", {"config": CONFIG}),
        tags=fields.pop("tags", []),
        state_type=state,
        created=BEGAN,
        start_time=BEGAN,
        end_time=ENDED if state in (StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED) else None,
        **fields,
    )


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (StateType.SCHEDULED, JobStatus.PENDING),
        (StateType.PENDING, JobStatus.PENDING),
        (StateType.PAUSED, JobStatus.PENDING),
        (StateType.CRASHED, JobStatus.PENDING),
        (StateType.RUNNING, JobStatus.RUNNING),
        (StateType.CANCELLING, JobStatus.RUNNING),
        (StateType.COMPLETED, JobStatus.COMPLETED),
        (StateType.FAILED, JobStatus.FAILED),
        (StateType.CANCELLED, JobStatus.CANCELLED),
    ],
)
def test_every_state_of_a_run_is_a_status_of_the_job(
    state: StateType, status: JobStatus, studio_settings: Settings
) -> None:
    assert job_of(flow_run(state), studio_settings).status is status


def test_every_state_that_prefect_has_is_mapped(studio_settings: Settings) -> None:
    for state in StateType:
        job_of(flow_run(state), studio_settings)


def test_a_crashed_run_is_recovering_and_not_failed(studio_settings: Settings) -> None:
    job = job_of(flow_run(StateType.CRASHED, run_count=1), studio_settings)
    assert (job.status, job.phase) == (JobStatus.PENDING, Phase.RECOVERING)


def test_a_running_job_shows_progress_and_metrics_from_its_record(studio_settings: Settings) -> None:
    run = flow_run(StateType.RUNNING)
    record = studio_settings.run_dir(job_id_of(run.id))
    record.append(Metrics(job_id="j", metrics={"step": 45, "total_steps": 100, "loss": 0.5, "epoch": 1.5}))
    job = job_of(run, studio_settings)
    assert job.progress == 0.45
    assert job.metrics["loss"] == 0.5


def test_a_failed_job_says_why(studio_settings: Settings) -> None:
    run = flow_run(StateType.FAILED, state_message="It broke.")
    assert job_of(run, studio_settings).error == {"error": "It broke."}
    record = studio_settings.run_dir(job_id_of(run.id))
    record.append(Failure(job_id="j", error="The loss became NaN.", details="Lower the learning rate."))
    error = job_of(run, studio_settings).error
    assert error and error["details"] == "Lower the learning rate."


def test_a_completed_job_shows_its_result(studio_settings: Settings) -> None:
    job = job_of(flow_run(StateType.COMPLETED, result=RESULT.model_dump_json()), studio_settings)
    assert (job.progress, job.cost, job.duration_seconds) == (1.0, 2.45, 3600.0)
    assert job.metrics == {"final_loss": 0.2, "best_loss": 0.1, "total_steps": 10, "tokens_per_second": 10}
    assert job.artifact == RESULT.artifact
    assert job.reused_from == "job_x"
    assert job.conversion == RESULT.conversion


def test_a_completed_jobs_metrics_tell_what_its_adapter_is_worth_on_held_out_rows(studio_settings: Settings) -> None:
    held_out = HeldOut(loss=0.5, perplexity=1.65, accuracy=0.89, tokens=10)
    result = RESULT.model_copy(update={"evaluation": Evaluation(held_out_rows=1, adapter=held_out)})
    metrics = job_of(flow_run(StateType.COMPLETED, result=result.model_dump_json()), studio_settings).metrics
    assert (metrics["perplexity"], metrics["accuracy"]) == (1.65, 0.89)


def test_a_run_whose_configuration_we_would_refuse_is_still_listed(studio_settings: Settings) -> None:
    run = flow_run(StateType.FAILED, parameters={"config": CONFIG | {"rank": 0}})
    assert job_of(run, studio_settings).config.rank == 0


def test_a_job_is_tagged_with_what_people_look_for() -> None:
    assert tags_of(TrainingConfig.model_validate(CONFIG)) == [
        "provider:local",
        "algorithm:lora",
        "model:some/model",
        "project:p",
    ]


def test_a_job_without_a_project_is_found_in_the_default_one() -> None:
    assert "project:default" in tags_of(TrainingConfig.model_validate(CONFIG | {"project_name": None}))


@pytest.mark.parametrize(
    ("state", "said", "phase"),
    [
        (StateType.SCHEDULED, None, Phase.QUEUED),
        (StateType.PAUSED, Phase.TRAINING, Phase.PAUSED),
        (StateType.RUNNING, Phase.PAUSING, Phase.PAUSING),
        (StateType.RUNNING, Phase.PAUSED, Phase.PAUSING),  # it has stopped, and is about to tell
        (StateType.CRASHED, Phase.PAUSING, Phase.PAUSING),
        (StateType.CRASHED, Phase.TRAINING, Phase.RECOVERING),
        (StateType.SCHEDULED, Phase.RECOVERING, Phase.RECOVERING),
        (StateType.PENDING, Phase.QUEUED, Phase.QUEUED),  # tried again, or resumed
        (StateType.SCHEDULED, Phase.TRAINING, Phase.QUEUED),  # scheduled again in the Prefect UI
        (StateType.CANCELLED, Phase.PAUSED, Phase.DONE),
    ],
)
def test_a_jobs_phase_is_what_it_said_last_as_far_as_its_state_allows(
    state: StateType, said: Phase | None, phase: Phase, studio_settings: Settings
) -> None:
    run = flow_run(state, run_count=1)
    if said:
        studio_settings.run_dir(job_id_of(run.id)).enter(said)
    assert job_of(run, studio_settings).phase is phase


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("INVALID_CONFIG", "invalid_config"),
        ("NOT_FOUND", "invalid_config"),
        ("OUT_OF_MEMORY", "out_of_memory"),
        ("DIVERGED", "diverged"),
        ("DISK_FULL", "disk_full"),
        ("PROCESS_DIED", "process_died"),
        ("RESOURCE_UNAVAILABLE", "resource_unavailable"),
        ("PLATFORM_NOT_CONNECTED", "resource_unavailable"),
        ("TRAINING_FAILED", "training_failed"),
        ("DEPLOY_FAILED", "deploy_failed"),
        ("TIMED_OUT", "timed_out"),
        ("INTERNAL_ERROR", "internal_error"),
        ("COMPLETED", "internal_error"),
        ("SOMETHING_ELSE", "internal_error"),
    ],
)
def test_a_failed_job_has_a_reason_of_a_known_kind(code: str, reason: str, studio_settings: Settings) -> None:
    run = flow_run(StateType.FAILED)
    assert job_of(run, studio_settings).termination_reason == "internal_error"
    studio_settings.run_dir(job_id_of(run.id)).append(Failure(job_id="j", error="It broke.", code=code))
    assert job_of(run, studio_settings).termination_reason == reason


def test_other_ends_have_their_reasons_too_and_what_has_not_ended_has_none(studio_settings: Settings) -> None:
    trained = RESULT.model_copy(update={"reused_from": None})
    ends = {
        TerminationReason.REUSED: flow_run(StateType.COMPLETED, result=RESULT.model_dump_json()),
        TerminationReason.COMPLETED: flow_run(StateType.COMPLETED, result=trained.model_dump_json()),
        TerminationReason.CANCELLED: flow_run(StateType.CANCELLED),
        None: flow_run(StateType.RUNNING),
    }
    for reason, run in ends.items():
        assert job_of(run, studio_settings).termination_reason == reason
    assert job_of(ends[TerminationReason.REUSED], studio_settings).adapter_id == "adapter_1"


def test_a_clone_names_the_job_it_is_one_of(studio_settings: Settings) -> None:
    clone = flow_run(StateType.SCHEDULED, tags=["provider:local", "parent:job_1"])
    assert job_of(clone, studio_settings).parent_job_id == "job_1"
    assert job_of(flow_run(StateType.SCHEDULED), studio_settings).parent_job_id is None
