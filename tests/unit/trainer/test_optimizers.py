"""How a job learns: optimizers, schedules, what steadies training, and when it ends."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoModelForCausalLM
from transformers.optimization import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
    get_polynomial_decay_schedule_with_warmup,
    get_wsd_schedule,
)
from transformers.trainer_pt_utils import LabelSmoother

from peft_studio.config import Optimizer, TrainingConfig
from peft_studio.events import Log, Metrics
from peft_studio.run_dir import RunDir
from peft_studio.trainer.data import Row, collate
from peft_studio.trainer.loss import summed_loss
from peft_studio.trainer.noise import noisy_embeddings
from peft_studio.trainer.optimizer import parameter_groups
from peft_studio.trainer.outcome import DONE, FAILED, STOPPED
from peft_studio.trainer.program import run as train
from peft_studio.trainer.schedule import Schedule
from peft_studio.trainer.stop import StopSignal
from tests.tiny import conversations, make_run, tiny_model, write_rows
from tests.unit.trainer.stops import StopAtLook

ONE_BATCH: dict[str, Any] = {"batch_size": 4, "gradient_accumulation_steps": 1, "num_epochs": 8, "dropout": 0.0}


@pytest.fixture(scope="module")
def four_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", conversations(4))


def curve(run: RunDir, name: str = "loss") -> list[float]:
    metrics = [event.metrics for _, event in run.events() if isinstance(event, Metrics)]
    return [each[name] for each in metrics if name in each]


def lines(run: RunDir) -> list[str]:
    return [event.message for _, event in run.events() if isinstance(event, Log)]


def stored(run: RunDir) -> dict[str, torch.Tensor]:
    return load_file(run.adapter / "adapter_model.safetensors")


def trained(run: RunDir) -> RunDir:
    assert train(run, StopSignal()) == DONE, run.read_failure()
    return run


def assert_resumes_bit_equal(whole: RunDir, stopped: RunDir, looks: int = 2 + 5) -> None:
    assert train(stopped, StopAtLook(looks)) == STOPPED
    assert curve(trained(stopped)) == curve(whole)
    assert all(torch.equal(stored(stopped)[name], weight) for name, weight in stored(whole).items())


@pytest.mark.parametrize("optimizer", Optimizer)
def test_an_optimizer_trains_and_goes_on_as_if_it_never_stopped(
    optimizer: Optimizer, tmp_path: Path, model: Path, four_rows: Path
) -> None:
    job = ONE_BATCH | {"optimizer": optimizer, "weight_decay": 0.01, "modules_to_save": ["norm"], "learning_rate": 0.01}
    # Large enough for eight-bit states, which small tensors do not get.
    run = trained(make_run(tmp_path / "run", model, four_rows, rank=128, **job))
    assert curve(run)[-1] < curve(run)[0] - (0.01 if optimizer is Optimizer.SGD else 0.2)
    assert_resumes_bit_equal(run, make_run(tmp_path / "stopped", model, four_rows, rank=128, **job))


def test_weight_decay_spares_norms_and_biases(tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model(tmp_path / "m", attention_bias=True))
    config = TrainingConfig(base_model="m", dataset_path="d", weight_decay=0.1)
    spared = {id(p) for group in parameter_groups(model, config) for p in group["params"] if not group["weight_decay"]}
    assert spared == {id(p) for name, p in model.named_parameters() if p.ndim == 1}


SCHEDULES: list[tuple[dict[str, Any], Callable[[torch.optim.Optimizer], LambdaLR]]] = [
    ({}, lambda o: get_linear_schedule_with_warmup(o, 3, 20)),
    ({"lr_schedule": "cosine"}, lambda o: get_cosine_schedule_with_warmup(o, 3, 20)),
    (
        {"lr_schedule": "polynomial", "lr_power": 2, "lr_min_ratio": 0.1},
        lambda o: get_polynomial_decay_schedule_with_warmup(o, 3, 20, lr_end=1e-3, power=2),
    ),
    ({"lr_schedule": "constant_with_warmup"}, lambda o: get_constant_schedule_with_warmup(o, 3)),
    (
        {"lr_schedule": "wsd", "lr_decay_ratio": 0.25},
        lambda o: get_wsd_schedule(o, num_warmup_steps=3, num_decay_steps=5, num_training_steps=20),
    ),
]


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize(("fields", "stock"), SCHEDULES)
def test_a_schedule_is_that_of_transformers(
    fields: dict[str, Any], stock: Callable[[torch.optim.Optimizer], LambdaLR]
) -> None:
    base: dict[str, Any] = {"base_model": "m", "dataset_path": "d", "learning_rate": 0.01, "num_epochs": 20}
    config = TrainingConfig.model_validate(base | {"warmup_ratio": 0.15} | fields)
    theirs = stock(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01))
    ours = Schedule.of(config, 16)
    assert ours.total == 20
    for step in range(20):
        assert ours.learning_rate(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        theirs.step()


def test_without_warmup_a_constant_rate_is_there_from_the_first_step() -> None:
    config = TrainingConfig.model_validate({"base_model": "m", "dataset_path": "d", "lr_schedule": "constant"})
    assert {Schedule.of(config, 100).learning_rate(step) for step in range(20)} == {2e-4}


def batch_of(*rows: list[int]) -> Any:
    return collate([Row(torch.tensor(ids).numpy(), torch.tensor(ids).numpy() > 40) for ids in rows])


def test_label_smoothing_is_that_of_transformers(model: Path) -> None:
    stock: Any = AutoModelForCausalLM.from_pretrained(model)
    batch = batch_of([3, 50, 4, 60, 70], [3, 41, 42, 5, 43])
    labels = batch.ids.masked_fill(~batch.learn, -100)
    theirs = LabelSmoother(epsilon=0.1)(stock(input_ids=batch.ids), labels, shift_labels=True)
    assert summed_loss(stock, batch, 0.1).item() / int(batch.learn.sum()) == pytest.approx(theirs.item(), rel=1e-5)


def test_noise_on_the_embeddings_is_as_strong_as_a_row_is_long(model: Path) -> None:
    stock: Any = AutoModelForCausalLM.from_pretrained(model)
    batch = batch_of([3, 50, 4, 60], [3, 41, 42, 5, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54])
    embedding = stock.get_input_embeddings()
    plain = embedding(batch.ids)
    with noisy_embeddings(stock, batch, 5.0):
        difference = (embedding(batch.ids) - plain).abs()
    for row, length in enumerate((4, 16)):
        most = 5 / math.sqrt(length * plain.shape[-1])
        assert 0.9 * most < difference[row].max() <= most * 1.0001
    assert torch.equal(embedding(batch.ids), plain)


def test_training_with_noise_goes_on_as_if_it_never_stopped(tmp_path: Path, model: Path, four_rows: Path) -> None:
    job = ONE_BATCH | {"neftune_alpha": 5, "label_smoothing": 0.1, "lr_schedule": "wsd", "warmup_ratio": 0.25}
    run = trained(make_run(tmp_path / "run", model, four_rows, **job))
    assert curve(run) != curve(trained(make_run(tmp_path / "plain", model, four_rows, **job | {"neftune_alpha": None})))
    assert_resumes_bit_equal(run, make_run(tmp_path / "stopped", model, four_rows, **job))


def test_gradient_checkpointing_changes_no_number(tmp_path: Path, model: Path, four_rows: Path) -> None:
    job = ONE_BATCH | {"dropout": 0.2, "num_epochs": 3}
    plain, again = (
        trained(make_run(tmp_path / str(flag), model, four_rows, gradient_checkpointing=flag, **job))
        for flag in (False, True)
    )
    assert curve(plain) == curve(again)
    assert all(torch.equal(stored(again)[name], weight) for name, weight in stored(plain).items())


def test_gradients_are_shortened_to_the_limit_or_not_at_all(tmp_path: Path, model: Path, four_rows: Path) -> None:
    job = ONE_BATCH | {"optimizer": "sgd", "num_epochs": 1, "learning_rate": 0.01}
    norms: list[float] = []
    for limit in (0.05, 0.0):
        run = trained(make_run(tmp_path / str(limit), model, four_rows, max_grad_norm=limit, **job))
        moved = torch.cat([weight.flatten() for name, weight in stored(run).items() if "lora_B" in name]).norm().item()
        norms += [moved / 0.01, curve(run, "grad_norm")[0]]
    assert norms[0] == pytest.approx(0.05, rel=1e-3)
    assert norms[2] == pytest.approx(norms[3], rel=1e-3)


@pytest.fixture
def overfitting(tmp_path: Path, model: Path) -> RunDir:
    """A job whose held-out loss soon goes up: the answers are noise."""
    rows = write_rows(tmp_path / "rows.jsonl", conversations(8))
    job = {"learning_rate": 1e-2, "rank": 32, "num_epochs": 30, "validation_split": 0.5, "batch_size": 4}
    job |= {"gradient_accumulation_steps": 1, "checkpoint_steps": 50, "dropout": 0.0}
    return make_run(tmp_path / "run", model, rows, early_stopping_patience=3, load_best_at_end=True, **job)


def test_training_ends_when_held_out_rows_show_nothing_better_and_the_best_is_kept(overfitting: RunDir) -> None:
    from peft_studio.trainer import job_evaluation

    trained(overfitting)
    looks = curve(overfitting, "eval_loss")
    best = looks.index(min(looks))
    assert len(looks) == best + 4 < 30
    assert f"Stopped early at step {len(looks)}: nothing better in 3 looks." in lines(overfitting)
    assert f"The adapter of step {best + 1} was best and is kept." in lines(overfitting)
    assert overfitting.read_summary().eval_loss == min(looks)  # pyright: ignore[reportOptionalMemberAccess]
    assert job_evaluation.run(overfitting, overfitting.adapter) == DONE
    evaluation = overfitting.read_evaluation()
    assert evaluation is not None
    assert evaluation.adapter is not None
    assert evaluation.adapter.loss == pytest.approx(min(looks), rel=1e-5)


def test_a_stop_changes_nothing_about_which_adapter_is_best(overfitting: RunDir, tmp_path: Path) -> None:
    other = RunDir(tmp_path / "stopped")
    other.write("config.json", overfitting.read_config())
    trained(overfitting)
    while train(other, StopAtLook(9)) == STOPPED:
        pass
    assert curve(other, "eval_loss") == curve(overfitting, "eval_loss")
    assert all(torch.equal(stored(other)[name], weight) for name, weight in stored(overfitting).items())


def test_a_best_checkpoint_that_was_lost_costs_a_warning(overfitting: RunDir, tmp_path: Path) -> None:
    looks = curve(trained(overfitting), "eval_loss")
    best = looks.index(min(looks)) + 1
    other = RunDir(tmp_path / "stopped")
    other.write("config.json", overfitting.read_config())
    # Two looks before training, then one before a step's batch and one before the held-out rows.
    assert train(other, StopAtLook(2 + 2 * (best + 1) + 1)) == STOPPED
    (other.checkpoints / f"step-{best}" / "state.pt").write_bytes(b"")
    trained(other)
    assert f"The best checkpoint, of step {best}, is lost; the last is kept." in lines(other)


def test_held_out_rows_are_looked_at_as_often_as_asked(tmp_path: Path, model: Path, rows: Path) -> None:
    run = trained(make_run(tmp_path / "run", model, rows, validation_split=0.2, eval_steps=2, max_steps=5))
    steps = [e.metrics["step"] for _, e in run.events() if isinstance(e, Metrics) and "eval_loss" in e.metrics]
    assert steps == [2, 4, 5]


def test_a_loss_that_runs_away_ends_training(tmp_path: Path, model: Path, four_rows: Path) -> None:
    # A scale of 512 on the output head, and nothing that shortens the gradients.
    job = {"optimizer": "sgd", "learning_rate": 0.01, "alpha": 4096, "target_modules": ["lm_head"], "max_grad_norm": 0}
    run = make_run(tmp_path / "run", model, four_rows, **ONE_BATCH | {"num_epochs": 40} | job)
    assert train(run, StopSignal()) == FAILED
    failure = run.read_failure()
    assert failure is not None
    assert failure.code == "DIVERGED"
    assert failure.error.startswith("The loss ran away: above 12.")
    assert failure.details.startswith("learning_rate: Lower")
    assert len(curve(run)) == 10


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"warmup_steps": 5, "warmup_ratio": 0.1}, "warmup_ratio"),
    ({"validation_split": 0, "early_stopping_patience": 2}, "early_stopping_patience"),
    ({"validation_split": 0, "load_best_at_end": True}, "load_best_at_end"),
    ({"algorithm": "prefix_tuning", "gradient_checkpointing": True}, "gradient_checkpointing"),
    ({"optimizer": "adam"}, "optimizer"),
    ({"lr_schedule": "stairs"}, "lr_schedule"),
    ({"max_grad_norm": -1}, "max_grad_norm"),
]


@pytest.mark.parametrize(("fields", "field"), REFUSED)
def test_settings_that_cannot_go_together_are_refused_by_name(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TrainingConfig.model_validate({"base_model": "m", "dataset_path": "d"} | fields)
    assert [error["loc"] for error in refused.value.errors()] == [(field,)]
