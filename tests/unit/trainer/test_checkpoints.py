import json
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from peft_studio.checkpoints import list_checkpoints
from peft_studio.events import Log, Metrics
from peft_studio.run_dir import Request, RunDir
from peft_studio.trainer.outcome import DONE, STOPPED
from peft_studio.trainer.products import NARROW
from peft_studio.trainer.program import run as train
from peft_studio.trainer.stop import StopSignal
from tests.tiny import make_run, tiny_model
from tests.unit.trainer.stops import StopAtLook

JOB: dict[str, Any] = {"dropout": 0.2, "warmup_steps": 2, "validation_split": 0.1}


def metrics(run: RunDir) -> list[tuple[float | None, ...]]:
    """Steps and numbers that do not depend on the clock."""
    found = [event.metrics for _, event in run.events() if isinstance(event, Metrics)]
    return [tuple(each.get(name) for name in ("step", "epoch", "loss", "learning_rate", "eval_loss")) for each in found]


def warnings_in(run: RunDir) -> list[str]:
    return [event.message for _, event in run.events() if isinstance(event, Log) and event.level == "WARNING"]


def weights(run: RunDir) -> dict[str, torch.Tensor]:
    return load_file(run.adapter / "adapter_model.safetensors")


def assert_same(run: RunDir, other: RunDir) -> None:
    assert metrics(run) == metrics(other)
    ours, theirs = weights(run), weights(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, model: Path, rows: Path) -> RunDir:
    run = make_run(tmp_path_factory.mktemp("runs") / "run", model, rows, **JOB)
    assert train(run, StopSignal()) == DONE
    return run


@pytest.fixture
def stopped(tmp_path: Path, model: Path, rows: Path) -> RunDir:
    """A run that has checkpoints of steps 3 and 5 of 8."""
    run = make_run(tmp_path / "run", model, rows, **JOB)
    assert train(run, StopAtLook(14)) == STOPPED
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-3", "step-5"]
    return run


# Looks: two before training, one before each of the 14 batches, one before each of the 2 evaluations' batches.
@pytest.mark.parametrize("looks", [3, 4, 5, 8, 11, 12, 17])
def test_a_run_that_was_stopped_goes_on_as_if_it_never_was(
    looks: int, tmp_path: Path, model: Path, rows: Path, uninterrupted: RunDir
) -> None:
    run = make_run(tmp_path / "run", model, rows, **JOB)
    assert train(run, StopAtLook(looks)) == STOPPED
    assert run.read_summary() is None
    assert train(run, StopSignal()) == DONE
    assert_same(run, uninterrupted)


def test_a_wide_model_goes_on_to_the_bit_too(tmp_path: Path, rows: Path) -> None:
    wide = tiny_model(tmp_path / "wide", hidden_size=NARROW)  # whose products may be another library's
    whole, run = (make_run(tmp_path / name, wide, rows, **JOB) for name in ("whole", "run"))
    assert train(whole, StopSignal()) == DONE
    assert train(run, StopAtLook(8)) == STOPPED
    assert train(run, StopSignal()) == DONE
    assert_same(run, whole)


def test_a_run_that_is_stopped_again_and_again_still_arrives(
    tmp_path: Path, model: Path, rows: Path, uninterrupted: RunDir
) -> None:
    run = make_run(tmp_path / "run", model, rows, **JOB)
    attempts = 1
    while train(run, StopAtLook(6)) == STOPPED:
        attempts += 1
    assert attempts > 3
    assert_same(run, uninterrupted)
    summary = run.read_summary()
    assert summary is not None
    assert len(summary.resumed_at) == attempts - 1
    assert summary.tokens == uninterrupted.read_summary().tokens  # pyright: ignore[reportOptionalMemberAccess]


def test_steps_that_are_repeated_after_a_crash_are_not_reported_twice(stopped: RunDir, uninterrupted: RunDir) -> None:
    # As after a crash: steps 4 and 5 were reported, and their checkpoint never came to be.
    shutil.rmtree(stopped.checkpoints / "step-5")
    assert train(stopped, StopSignal()) == DONE
    assert_same(stopped, uninterrupted)
    assert stopped.read_summary().resumed_at == [3]  # pyright: ignore[reportOptionalMemberAccess]


def test_only_the_newest_two_are_kept(uninterrupted: RunDir, stopped: RunDir) -> None:
    assert sorted(path.name for path in uninterrupted.checkpoints.iterdir()) == ["step-3", "step-6"]
    assert train(stopped, StopSignal()) == DONE
    assert sorted(path.name for path in stopped.checkpoints.iterdir()) == ["step-5", "step-6"]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("adapter_model.safetensors", "flipped"),
        ("state.pt", "shortened"),
        ("progress.json", "flipped"),
        ("adapter_config.json", "gone"),
        ("manifest.json", "shortened"),
        ("manifest.json", "gone"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    name: str, damage: str, stopped: RunDir, uninterrupted: RunDir
) -> None:
    file = stopped.checkpoints / "step-5" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x7F
    match damage:
        case "flipped":
            file.write_bytes(content)
        case "shortened":
            file.write_bytes(content[:-1])
        case _:
            file.unlink()
    assert train(stopped, StopSignal()) == DONE
    assert_same(stopped, uninterrupted)
    assert any("step-5 is not used" in line for line in warnings_in(stopped))
    assert stopped.read_summary().resumed_at == [3]  # pyright: ignore[reportOptionalMemberAccess]


def test_what_a_killed_writer_left_is_not_taken_for_a_checkpoint(stopped: RunDir, uninterrupted: RunDir) -> None:
    shutil.copytree(stopped.checkpoints / "step-5", stopped.checkpoints / ".step-7")
    assert train(stopped, StopSignal()) == DONE
    assert_same(stopped, uninterrupted)
    assert sorted(path.name for path in stopped.checkpoints.iterdir()) == ["step-5", "step-6"]


def test_a_checkpoint_of_another_configuration_is_passed_over_and_makes_way(stopped: RunDir) -> None:
    for step in (50, 60):
        shutil.copytree(stopped.checkpoints / "step-5", stopped.checkpoints / f"step-{step}")
    stopped.write("config.json", stopped.read_config().model_copy(update={"learning_rate": 1e-3}))
    assert train(stopped, StopSignal()) == DONE
    assert len([line for line in warnings_in(stopped) if "belongs to another configuration" in line]) == 4
    assert sorted(path.name for path in stopped.checkpoints.iterdir()) == ["step-3", "step-6"]
    assert stopped.read_summary().resumed_at == []  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # stock PEFT's
def test_a_checkpoint_is_an_adapter_that_stock_peft_loads(stopped: RunDir, model: Path) -> None:
    folder = stopped.checkpoints / "step-5"
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), folder)
    weight = load_file(folder / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"
    assert weight[name].abs().max() > 0
    assert torch.equal(adapted.get_parameter(name.replace(".weight", ".default.weight")), weight[name])


def test_a_checkpoint_that_cannot_be_saved_costs_a_warning_and_not_the_run(
    tmp_path: Path, model: Path, rows: Path, uninterrupted: RunDir
) -> None:
    run = make_run(tmp_path / "run", model, rows, **JOB)
    run.checkpoints.write_text("a file where the folder should be")
    assert train(run, StopSignal()) == DONE
    assert_same(run, uninterrupted)
    assert [line for line in warnings_in(run) if "step 3 could not be saved" in line]


def test_on_a_full_disk_the_checkpoint_before_stays_whole_and_training_goes_on(
    stopped: RunDir, uninterrupted: RunDir
) -> None:
    before = {path: path.read_bytes() for path in (stopped.checkpoints / "step-5").iterdir()}
    largest = max(len(content) for content in before.values())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, limits[1]))
    try:
        assert train(stopped, StopSignal()) == DONE
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path: path.read_bytes() for path in before} == before
    assert [line for line in warnings_in(stopped) if "step 6 could not be saved" in line]
    assert_same(stopped, uninterrupted)


def test_the_manifest_lists_every_file_with_size_and_hash(stopped: RunDir) -> None:
    folder = stopped.checkpoints / "step-5"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["files"]) == {path.name for path in folder.iterdir()} - {"manifest.json"}
    for name, facts in manifest["files"].items():
        assert facts["size"] == (folder / name).stat().st_size
        assert len(facts["sha256"]) == 64


class AskAtLook(StopSignal):
    """Asks for a checkpoint the n-th time somebody looks whether to stop."""

    def __init__(self, run: RunDir, n: int):
        super().__init__()
        self._run, self._left = run, n

    @property
    def requested(self) -> bool:
        self._left -= 1
        if self._left == 0:
            self._run.ask(Request.CHECKPOINT)
        return super().requested


def test_a_checkpoint_is_saved_when_it_is_asked_for_and_changes_nothing(
    tmp_path: Path, model: Path, rows: Path, uninterrupted: RunDir
) -> None:
    run = make_run(tmp_path / "run", model, rows, **JOB | {"checkpoint_steps": 100})
    assert train(run, AskAtLook(run, 8)) == DONE
    [checkpoint] = list_checkpoints(run)
    assert 1 <= checkpoint.step < 8
    assert checkpoint.epoch == checkpoint.step / 4
    steps = [event.metrics for _, event in run.events() if isinstance(event, Metrics) and "loss" in event.metrics]
    assert checkpoint.loss == steps[checkpoint.step - 1]["loss"]
    assert checkpoint.size_bytes > sum(path.stat().st_size for path in Path(checkpoint.path).glob("*.safetensors"))
    assert not run.is_asked(Request.CHECKPOINT)
    assert metrics(run) == metrics(uninterrupted)
