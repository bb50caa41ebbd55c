"""The words of the domain: configurations, ids, errors."""

import pickle
from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError

from peft_studio import errors
from peft_studio.config import Algorithm, Quantization, TrainingConfig
from peft_studio.errors import InvalidConfig, JobNotFound, StudioError
from peft_studio.jobs import flow_run_id_of, job_id_of

MINIMAL = {"base_model": "some/model", "dataset_path": "rows.jsonl"}
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StudioError)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rank", 0),
        ("learning_rate", 0.5),
        ("learning_rate", 1e-7),
        ("algorithm", "magic"),
        ("dropout", 1.0),
        ("num_epochs", 0),
        ("validation_split", 0.9),
        ("target_modules", []),
        ("quantization", "int2"),
        ("seed", -1),
        ("base_model", "with\x00zero"),
        ("surprise", 1),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as refused:
        TrainingConfig.model_validate(MINIMAL | {field: value})
    assert refused.value.errors()[0]["loc"][0] == field


def test_qlora_quantizes_to_four_bits_unless_told_otherwise() -> None:
    assert TrainingConfig(**MINIMAL, algorithm=Algorithm.QLORA).effective_quantization is Quantization.INT4
    assert TrainingConfig(**MINIMAL).effective_quantization is Quantization.NONE
    with pytest.raises(ValidationError, match="qlora needs a quantized base model"):
        TrainingConfig(**MINIMAL, algorithm=Algorithm.QLORA, quantization=Quantization.NONE)


def test_a_job_id_and_a_flow_run_id_say_the_same() -> None:
    flow_run_id = uuid4()
    assert flow_run_id_of(job_id_of(flow_run_id)) == flow_run_id


@pytest.mark.parametrize(
    "job_id", ["", "job_", "job_123", "abc", str(UUID(int=5)), "job_" + "G" * 32, "job_" + "A" * 32, "job_../../etc"]
)
def test_what_cannot_be_a_job_id_is_a_job_not_found(job_id: str) -> None:
    with pytest.raises(JobNotFound):
        flow_run_id_of(job_id)


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_survives_pickling_with_its_details(kind: type[StudioError]) -> None:
    error = pickle.loads(pickle.dumps(kind("Because.", field="rank")))
    assert (type(error), error.message, error.details) == (kind, "Because.", {"field": "rank"})


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_a_message_of_its_own(kind: type[StudioError]) -> None:
    assert kind().message.endswith(".")


def test_details_never_hide_the_message() -> None:
    assert InvalidConfig("No.", message="other").message == "No."
