"""Plans: what is refused before anything runs, what a job stands on, how many steps it takes."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from infra.datasets.store import DatasetStore
from infra.planning import capabilities
from infra.planning.estimates import Work, local_seconds, tokens_of
from infra.planning.planner import cache_key, make_plan, platforms_of, total_steps
from infra.platforms import vendors
from infra.settings import LocalEngine, Settings
from infra.uploads import UploadRecord, Uploads
from peft_studio.config import DeployConfig, ModelSource, Precision, Quantization, TrainingConfig
from peft_studio.errors import InvalidConfig, PlatformNotConnected, ResourceUnavailable, StudioError
from peft_studio.evaluation.comparison import EvaluationConfig
from peft_studio.machine import Gpu
from peft_studio.plan import DatasetFacts, ModelFacts, RowFormat
from peft_studio.platforms import Feature
from peft_studio.promotion import DeployIf
from peft_studio.stored_datasets import Dataset, FileType
from peft_studio.tracking import Tracking
from tests.measured_machine import machine
from tests.model_folders import write_model

MACHINE = machine(
    quantizations={Quantization.NONE: None, Quantization.INT8: None, Quantization.INT4: "no kernel for this CPU"}
)
MODEL = ModelFacts(id="m", revision="r", architecture="A", parameters=1_000_000, linear_modules=["q_proj"])
DATASET = DatasetFacts(path="d", sha256="0" * 64, format=RowFormat.TEXT, rows=100, bytes=5, characters=40_000)


def write_rows(path: Path, count: int) -> Path:
    path.write_text("".join(json.dumps({"prompt": f"Question {n}", "completion": "Yes"}) + "\n" for n in range(count)))
    return path


@pytest.fixture
def basics(tmp_path: Path) -> dict[str, Any]:
    return {
        "base_model": str(write_model(tmp_path / "model")),
        "model_source": "local",
        "dataset_path": str(write_rows(tmp_path / "rows.jsonl", 20)),
    }


@pytest.fixture
def measured(studio_settings: Settings) -> Settings:
    studio_settings.data_dir.mkdir(parents=True)
    (studio_settings.data_dir / "machine.json").write_text(MACHINE.model_dump_json())
    return studio_settings


def refusal(settings: Settings, kind: type[StudioError] = InvalidConfig, **config: Any) -> StudioError:
    with pytest.raises(kind) as caught:
        make_plan(TrainingConfig(**config), settings)
    error = caught.value
    assert error.details["field"] in error.message
    if isinstance(error, InvalidConfig):
        assert error.details["issue"] in error.message
    return error


def test_a_plan_says_what_the_job_stands_on(measured: Settings, basics: dict[str, Any]) -> None:
    config = TrainingConfig(**basics)
    plan = make_plan(config, measured)
    assert plan.config == config
    assert plan.model.linear_modules == ["q_proj", "v_proj", "down_proj"]
    assert (plan.dataset.rows, plan.dataset.format) == (20, RowFormat.PROMPT_COMPLETION)
    assert plan.total_steps == 6  # 18 rows are 5 batches of 4, hence 2 steps of 4 batches, three times
    assert plan.estimated_cost == 0
    assert plan.estimated_duration_minutes == pytest.approx(0.17, abs=0.01)
    assert plan.model_validate_json(plan.model_dump_json()) == plan


def test_rows_have_to_be_those_of_the_objective(
    studio_settings: Settings, basics: dict[str, Any], tmp_path: Path
) -> None:
    error = refusal(studio_settings, **basics, objective="dpo")
    assert error.details["field"] == "dataset_path"
    assert error.details["row"] == 1
    assert "prompt_completion; the objective dpo takes chosen and rejected" in error.message
    pair = {"prompt": "Hello", "chosen": "World", "rejected": "Void"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    basics["dataset_path"] = str(tmp_path / "pairs.jsonl")
    assert "is laid out as preference; the objective sft takes" in refusal(studio_settings, **basics).message
    plan = make_plan(TrainingConfig(**basics, objective="orpo"), studio_settings)
    assert (plan.dataset.format, plan.dataset.conversational) == (RowFormat.PREFERENCE, False)


def test_reward_functions_of_the_operators_own_have_to_be_allowed(
    studio_settings: Settings, basics: dict[str, Any], tmp_path: Path
) -> None:
    job = basics | {"objective": "grpo", "grpo": {"rewards": [{"function": "team.rewards:brevity"}]}}
    refused = refusal(studio_settings, **job)
    assert refused.details["field"] == "grpo.rewards"
    assert "PEFT_STUDIO_REWARD_FUNCTIONS" in refused.message
    for allowed in ("team.rewards:brevity", "team.rewards"):
        assert make_plan(TrainingConfig(**job), studio_settings.model_copy(update={"reward_functions": [allowed]}))
    other = studio_settings.model_copy(update={"reward_functions": ["team", "team.rewards:other"]})
    assert "not allowed" in refusal(other, **job).message


def test_columns_that_answers_are_compared_with_have_to_be_there(
    studio_settings: Settings, basics: dict[str, Any]
) -> None:
    job = basics | {"objective": "grpo", "grpo": {"rewards": [{"function": "exact_match"}]}}
    assert "the column 'answer'" in refusal(studio_settings, **job).message
    named = {"function": "exact_match", "options": {"column": "completion"}}
    plan = make_plan(TrainingConfig(**job | {"grpo": {"rewards": [named], "num_iterations": 2}}), studio_settings)
    assert (plan.dataset.format, plan.total_steps) == (RowFormat.PROMPT, 12)


def test_without_measurements_the_duration_is_unknown(studio_settings: Settings, basics: dict[str, Any]) -> None:
    assert make_plan(TrainingConfig(**basics, algorithm="qlora"), studio_settings).estimated_duration_minutes is None


def test_a_single_row_is_enough(studio_settings: Settings, basics: dict[str, Any], tmp_path: Path) -> None:
    basics["dataset_path"] = str(write_rows(tmp_path / "one.jsonl", 1))
    assert make_plan(TrainingConfig(**basics, validation_split=0.5, num_epochs=2), studio_settings).total_steps == 2


PROVIDERS = [name for name in vendors.names(Feature.TRAINING) if name != "local"]
TRACKERS = [name for name in vendors.names(Feature.EXPERIMENTS) if name not in ("local", "trackio", "tensorboard")]
WISHES = [("provider", name) for name in PROVIDERS] + [("experiment_tracker", name) for name in TRACKERS]
FEATURES = {"provider": Feature.TRAINING, "experiment_tracker": Feature.EXPERIMENTS}
NOT_YET = [(field, name) for field, name in WISHES if FEATURES[field] not in vendors.VENDORS[name].supported]


@pytest.mark.parametrize(("field", "name"), [*WISHES, ("provider", "Lambda_Labs"), ("experiment_tracker", "comet_ml")])
def test_platforms_must_be_connected_first(studio_settings: Settings, field: str, name: str) -> None:
    wish = {"base_model": "m", "dataset_path": "d", field: name}
    error = refusal(studio_settings, PlatformNotConnected, **wish)
    (needed,) = platforms_of(TrainingConfig(**wish))
    assert error.details == {"platform": needed, "field": field}
    assert f"POST /platforms/{needed}/connect" in error.message


@pytest.mark.parametrize(("field", "name"), NOT_YET)
def test_what_this_version_cannot_use_is_said_although_it_is_connected(
    studio_settings: Settings, field: str, name: str
) -> None:
    config = TrainingConfig.model_validate({"base_model": "m", "dataset_path": "d", field: name})
    with pytest.raises(ResourceUnavailable) as caught:
        make_plan(config, studio_settings, connected=platforms_of(config))
    assert caught.value.details == {"platform": name, "field": field}
    assert "this version" in caught.value.message


def test_a_local_model_is_found_by_the_id_that_searching_shows(
    studio_settings: Settings, basics: dict[str, Any]
) -> None:
    folder = write_model(studio_settings.data_dir / "models" / "org" / "mine")
    model = make_plan(TrainingConfig(**basics | {"base_model": "org/mine"}), studio_settings).model
    assert (model.id, model.path) == ("org/mine", str(folder))
    for name in ("org/other", "../models/org/mine", "org"):
        refusal(studio_settings, **basics | {"base_model": name})


def test_a_job_of_this_machine_needs_no_platform() -> None:
    config = TrainingConfig(base_model="m", dataset_path="d", provider="Local", experiment_tracker="local")
    assert platforms_of(config) == frozenset()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("provider", "mars"),
        ("provider", "comet"),
        ("experiment_tracker", "notebook"),
        ("experiment_tracker", "runpod"),
        ("resource_id", "gpu-rtx4090"),
    ],
)
def test_unknown_names_are_refused(studio_settings: Settings, field: str, value: str) -> None:
    error = refusal(studio_settings, base_model="m", dataset_path="d", **{field: value})
    assert error.details["field"] == field
    assert value in error.message


@pytest.mark.parametrize(
    "given", [{"resource_id": "auto"}, {"resource_id": "local"}, {"experiment_tracker": "local"}, {"provider": "local"}]
)
def test_names_of_this_machine_are_accepted(
    studio_settings: Settings, basics: dict[str, Any], given: dict[str, Any]
) -> None:
    make_plan(TrainingConfig(**basics, **given), studio_settings)


@pytest.mark.parametrize(
    "output_dir",
    [
        "/tmp/elsewhere",
        "../out",
        "a/../../b",
        "a/../b",
        ".",
        "runs",
        "runs/job_1",
        "results",
        ".hidden",
        "link",
        "a\0b",
        "a" * 300,
    ],
)
def test_an_output_directory_elsewhere_is_refused(measured: Settings, tmp_path: Path, output_dir: str) -> None:
    (measured.data_dir / "link").symlink_to(tmp_path)
    error = refusal(measured, base_model="m", dataset_path="d", output_dir=output_dir)
    assert error.details["field"] == "output_dir"


def test_an_output_directory_below_a_file_is_refused(measured: Settings) -> None:
    (measured.data_dir / "file").touch()
    error = refusal(measured, base_model="m", dataset_path="d", output_dir="file/below")
    assert "through a file" in error.message


@pytest.mark.parametrize("output_dir", ["output", "./output", "a/b", "adapters"])
def test_an_output_directory_inside_the_data_directory_is_accepted(
    measured: Settings, basics: dict[str, Any], output_dir: str
) -> None:
    make_plan(TrainingConfig(**basics, output_dir=output_dir), measured)
    make_plan(TrainingConfig(**basics, output_dir=str(measured.data_dir / output_dir)), measured)


def test_what_this_machine_cannot_do_is_refused_with_the_reason(measured: Settings, basics: dict[str, Any]) -> None:
    error = refusal(measured, **basics, algorithm="qlora")
    assert error.details["field"] == "quantization"
    assert "no kernel for this CPU" in error.message
    assert refusal(measured, **basics, precision="bfloat16").details["field"] == "precision"
    assert refusal(measured, **basics, num_processes=64).details["field"] == "num_processes"
    make_plan(TrainingConfig(**basics, quantization="int8"), measured)


def test_faults_of_model_and_data_come_out_of_the_plan(measured: Settings, basics: dict[str, Any]) -> None:
    def field(**change: Any) -> str:
        return refusal(measured, **(basics | change)).details["field"]

    assert field(base_model="/nowhere") == "base_model"
    assert field(model_revision="main") == "model_revision"
    assert field(model_source="ollama") == "model_source"
    assert field(dataset_path="/nowhere.jsonl") == "dataset_path"
    assert field(target_modules=["query"]) == "target_modules"
    assert field(max_length=129) == "max_length"


def test_the_default_length_gives_way_to_a_small_model(measured: Settings, basics: dict[str, Any]) -> None:
    assert make_plan(TrainingConfig(**basics), measured).config.max_length > 128
    make_plan(TrainingConfig(**basics, max_length=128), measured)


@pytest.mark.parametrize(
    ("rows", "batch", "accumulation", "epochs", "limit", "steps"),
    [
        (1, 1, 1, 1, None, 1),
        (1, 64, 64, 3, None, 3),
        (16, 4, 4, 1, None, 1),
        (17, 4, 4, 1, None, 2),
        (100, 4, 4, 3, None, 21),
        (100, 4, 4, 3, 5, 5),
        (100, 4, 4, 3, 500, 21),
    ],
)
def test_steps_are_counted_with_the_smaller_last_ones(
    rows: int, batch: int, accumulation: int, epochs: int, limit: int | None, steps: int
) -> None:
    config = TrainingConfig(
        base_model="m",
        dataset_path="d",
        batch_size=batch,
        gradient_accumulation_steps=accumulation,
        num_epochs=epochs,
        max_steps=limit,
    )
    assert total_steps(config, rows) == steps


def key(model: ModelFacts = MODEL, dataset: DatasetFacts = DATASET, **config: Any) -> str:
    return cache_key(TrainingConfig(**{"base_model": "m", "dataset_path": "d"} | config), model, dataset)


INDIFFERENT: list[dict[str, Any]] = [
    {"model_source": ModelSource.LOCAL},
    {"model_revision": "main"},
    {"dataset_path": "elsewhere"},
    {"dataset_sha256": "0" * 64},
    {"registries": [{"kind": "s3", "url": "s3://bucket/adapters"}]},
    {"provider": "runpod"},
    {"resource_id": "auto"},
    {"spot": True},
    {"max_cost": 5},
    {"max_duration": 60},
    {"evaluation": EvaluationConfig(generation_rows=8)},
    {"experiment_tracker": "wandb"},
    {"tracking": Tracking(tags=["night"])},
    {"project_name": "p"},
    {"metadata": {"team": "a"}},
    {"output_dir": "o"},
    {"deploy": DeployConfig(only_if=DeployIf())},
    {"serve_target": "vllm"},
    {"test_prompt": "Hi"},
    {"force": True},
    {"checkpoint_steps": 5},
    {"num_processes": 1},
    {"shard_base": True},
]
DECISIVE: list[dict[str, Any]] = [
    {"objective": "grpo", "grpo": {"rewards": [{"function": "json"}]}},
    {"base_model": "n"},
    {"algorithm": "dora"},
    {"rank": 9},
    {"alpha": 17},
    {"dropout": 0.1},
    {"target_modules": ["q_proj"]},
    {"modules_to_save": ["lm_head"]},
    {"layers_to_transform": [1]},
    {"rank_pattern": {"q_proj": 4}},
    {"alpha_pattern": {"q_proj": 4}},
    {"bias": "all"},
    {"use_rslora": True},
    {"use_dora": True},
    {"trainable_tokens": ["<|end|>"]},
    {"algorithm_options": {"init_lora_weights": "orthogonal"}},
    {"quantization": "int8"},
    {"precision": "bfloat16"},
    {"learning_rate": 1e-3},
    {"batch_size": 5},
    {"gradient_accumulation_steps": 5},
    {"num_epochs": 5},
    {"max_steps": 5},
    {"warmup_steps": 5},
    {"warmup_ratio": 0.1},
    {"lr_schedule": "cosine"},
    {"lr_min_ratio": 0.1},
    {"lr_power": 2},
    {"lr_decay_ratio": 0.2},
    {"optimizer": "lion"},
    {"weight_decay": 0.1},
    {"max_grad_norm": 0},
    {"label_smoothing": 0.1},
    {"neftune_alpha": 5},
    {"gradient_checkpointing": True},
    {"eval_steps": 5},
    {"early_stopping_patience": 2},
    {"load_best_at_end": True},
    {"validation_split": 0.2},
    {"max_length": 64},
    {"long_rows": "drop"},
    {"packing": False},
    {"loss_chunk_tokens": 0},
    {"fast_kernels": False},
    {"group_by_length": False},
    {"columns": {"prompt": "question"}},
    {"objective": "dpo"},
    {"objective": "dpo", "objective_options": {"beta": 0.2}},
    {"seed": 5},
]


@pytest.mark.parametrize("change", INDIFFERENT)
def test_what_does_not_change_the_adapter_does_not_change_its_key(change: dict[str, Any]) -> None:
    assert key(**change) == key()


@pytest.mark.parametrize("change", DECISIVE)
def test_what_changes_the_adapter_changes_its_key(change: dict[str, Any]) -> None:
    assert key(**change) != key()


def test_it_is_known_of_every_setting_whether_it_changes_the_adapter() -> None:
    assert {name for change in INDIFFERENT + DECISIVE for name in change} == set(TrainingConfig.model_fields)


def test_the_key_follows_the_content_of_model_and_data() -> None:
    assert key(model=MODEL.model_copy(update={"revision": "s"})) != key()
    assert key(dataset=DATASET.model_copy(update={"sha256": "1" * 64})) != key()
    assert key(model=MODEL.model_copy(update={"path": "/here"})) == key()
    assert key(dataset=DATASET.model_copy(update={"path": "/here"})) == key()
    assert key(quantization="none") == key()
    assert key(target_modules=["a", "b"]) == key(target_modules=["b", "a", "a"])


def test_the_estimate_follows_its_formula() -> None:
    config = TrainingConfig(base_model="m", dataset_path="d")
    # 10,000 tokens, twice, times four FLOPs times a million parameters, at half of 1 GFLOP/s
    work = Work(config, MODEL, DATASET, tokens_of(config, DATASET, epochs=2))
    assert local_seconds(work, rate=1) == pytest.approx(10 + 160)
    short = TrainingConfig(base_model="m", dataset_path="d", max_length=10)
    assert local_seconds(Work(short, MODEL, DATASET, tokens_of(short, DATASET, 2)), rate=1) == pytest.approx(10 + 16)
    again = TrainingConfig(base_model="m", dataset_path="d", gradient_checkpointing=True)
    assert local_seconds(Work(again, MODEL, DATASET, work.tokens), rate=1) == pytest.approx(10 + 240)


def test_the_rate_is_that_of_the_number_format() -> None:
    gpu = MACHINE.model_copy(update={"gpus": [Gpu(name="H100", vram_gb=80)], "bf16_gflops": 900})
    assert MACHINE.gflops(Precision.BFLOAT16) == MACHINE.gflops(Precision.AUTO) == 100
    assert gpu.gflops(Precision.AUTO) == gpu.gflops(Precision.BFLOAT16) == 900
    assert gpu.gflops(Precision.FLOAT32) == 100


@pytest.mark.parametrize(
    "changed", [{"host": "another"}, {"torch": "1.0"}, {"bitsandbytes": None}, {"torchao": None}, {"trainer": ""}]
)
def test_measurements_of_another_machine_do_not_count(measured: Settings, changed: dict[str, Any]) -> None:
    assert capabilities.load(measured) == MACHINE
    (measured.data_dir / "machine.json").write_text(MACHINE.model_copy(update=changed).model_dump_json())
    assert capabilities.load(measured) is None


def test_broken_measurements_do_not_count(measured: Settings) -> None:
    (measured.data_dir / "machine.json").write_text("{")
    assert capabilities.load(measured) is None


def test_this_machine_is_measured_once(studio_settings: Settings) -> None:
    assert capabilities.load(studio_settings) is None
    found = capabilities.probe(studio_settings)
    assert found.cpu_cores == len(os.sched_getaffinity(0))
    assert found.ram_gb > 0.1
    assert found.matmul_gflops > 0.1
    assert found.quantizations.keys() == set(Quantization)
    assert found.quantizations[Quantization.NONE] is None
    assert capabilities.load(studio_settings) == capabilities.probe(studio_settings) == found


def test_a_machine_that_cannot_be_measured_says_why(studio_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(ResourceUnavailable, match="could not be measured"):
        capabilities.probe(studio_settings)


def uploaded(settings: Settings, tmp_path: Path, rows: int) -> Dataset:
    uploads = Uploads(settings)
    upload = uploads.begin(None)
    file = write_rows(tmp_path / "uploaded", rows)
    upload.describe(UploadRecord(name="rows.jsonl", file_type=FileType.JSONL, length=file.stat().st_size), file)
    dataset = DatasetStore(settings).take(upload)
    upload.close()
    return dataset


def test_the_id_of_an_uploaded_data_set_stands_for_its_file(
    measured: Settings, basics: dict[str, Any], tmp_path: Path
) -> None:
    by_path = make_plan(TrainingConfig(**basics), measured)
    dataset = uploaded(measured, tmp_path, 20)
    plan = make_plan(TrainingConfig(**basics | {"dataset_path": dataset.dataset_id}), measured)
    assert plan.config.dataset_path == dataset.dataset_id
    assert plan.dataset == by_path.dataset.model_copy(update={"path": dataset.path})
    assert plan.cache_key == by_path.cache_key
    DatasetStore(measured).delete(dataset.dataset_id)
    error = refusal(measured, **basics | {"dataset_path": dataset.dataset_id})
    assert error.details["field"] == "dataset_path"
    assert "upload it first" in error.message


def test_what_writes_no_text_is_not_deployed_and_may_be_an_encoder(
    studio_settings: Settings, basics: dict[str, Any], tmp_path: Path
) -> None:
    labels = ["".join(json.dumps({"text": "Hello", "label": label}) + "\n" for label in range(2))]
    (tmp_path / "labels.jsonl").write_text("".join(labels))
    job = basics | {"dataset_path": str(tmp_path / "labels.jsonl"), "objective": "sequence_classification"}
    assert make_plan(TrainingConfig(**job), studio_settings).dataset.labels == [0, 1]
    error = refusal(studio_settings, **job, deploy={"platform": "local"})
    assert error.details["field"] == "deploy"
    assert "writes no text" in error.message
    (tmp_path / "labels.jsonl").write_text(labels[0][: len(labels[0]) // 2])
    assert "all rows have the same label" in refusal(studio_settings, **job).message
    (tmp_path / "labels.jsonl").write_text(labels[0])
    encoder = str(write_model(tmp_path / "encoder", architectures=["BertForMaskedLM"]))
    assert not make_plan(TrainingConfig(**job | {"base_model": encoder}), studio_settings).model.writes
    assert "does not write text" in refusal(studio_settings, **basics | {"base_model": encoder}).message


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"algorithm": "dora"}, "algorithm"),
        ({"rank": 128}, "rank"),
        ({"alpha_pattern": {"q_proj": 4.0}}, "deploy"),
    ],
)
def test_where_only_vllm_serves_adapters_a_job_that_it_would_not_serve_is_not_deployed(
    studio_settings: Settings, basics: dict[str, Any], changes: dict[str, Any], field: str
) -> None:
    only_vllm = studio_settings.model_copy(update={"local_engine": LocalEngine.VLLM})
    job = basics | {"deploy": {"platform": "local"}}
    assert make_plan(TrainingConfig(**job), only_vllm)
    assert make_plan(TrainingConfig(**job | changes), studio_settings)
    assert refusal(only_vllm, **job, **changes).details["field"] == field
