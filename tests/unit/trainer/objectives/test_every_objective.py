"""What the loop promises holds for each objective: it learns, resumes to the bit, stores, and is measured."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from peft_studio.objectives import AIMS, Objective
from peft_studio.run_dir import RunDir
from peft_studio.trainer.objectives import CRITERIA
from peft_studio.trainer.outcome import STOPPED
from peft_studio.trainer.program import run as train
from tests.unit.trainer.objectives.jobs import ROWS, evaluated, job, reported, stored, trained
from tests.unit.trainer.stops import StopAtLook

OTHERS = [objective for objective in Objective if objective is not Objective.SFT]


def test_every_objective_of_the_table_is_one_of_the_trainers() -> None:
    assert list(CRITERIA) == list(AIMS) == list(Objective)
    assert set(ROWS) == set(OTHERS)


@pytest.fixture(scope="module", params=OTHERS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, model: Path) -> RunDir:
    """A job of every objective, trained to its end."""
    return trained(job(tmp_path_factory.mktemp(request.param), model, request.param))


def test_it_learns(whole: RunDir) -> None:
    looks = [each for each in reported(whole) if "eval_loss" in each]
    assert len(looks) == 2
    assert looks[-1]["eval_loss"] < looks[0]["eval_loss"]
    assert looks[-1]["eval_accuracy"] > 0.8


@pytest.mark.parametrize("looks", [6, 12])
def test_it_goes_on_after_a_stop_as_if_nothing_had_happened(
    looks: int, whole: RunDir, tmp_path: Path, model: Path
) -> None:
    run = job(tmp_path, model, whole.read_config().objective)
    assert train(run, StopAtLook(looks)) == STOPPED
    trained(run)
    assert reported(run) == reported(whole)
    ours, theirs = stored(run), stored(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_packed_rows_give_what_padded_ones_do(whole: RunDir, tmp_path: Path, model: Path) -> None:
    plain = {"packing": False, "loss_chunk_tokens": 0, "group_by_length": False, "batch_size": 2}
    run = trained(job(tmp_path, model, whole.read_config().objective, **plain, gradient_accumulation_steps=4))
    # At the first step all rewards are nothing but rounding, and which is greater says nothing.
    for ours, theirs in zip(reported(run)[1:], reported(whole)[1:], strict=True):
        assert ours == pytest.approx(theirs, rel=2e-3, abs=2e-4)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # stock PEFT's
def test_stock_peft_loads_its_adapter(whole: RunDir, model: Path) -> None:
    settings = json.loads((whole.adapter / "adapter_config.json").read_text())
    assert settings["task_type"] == "CAUSAL_LM"
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), whole.adapter)
    assert type(loaded).__name__ == "PeftModelForCausalLM"
    assert any(weight.abs().sum() > 0 for name, weight in loaded.named_parameters() if "lora_B" in name)


def test_it_is_measured_before_and_after(whole: RunDir) -> None:
    evaluation, summary = evaluated(whole), whole.read_summary()
    assert evaluation.base and evaluation.adapter and evaluation.answer and summary
    before, after = evaluation.base, evaluation.adapter
    assert evaluation.held_out_rows == 6
    assert after.loss == pytest.approx(summary.eval_loss, rel=1e-4)
    assert after.accuracy == pytest.approx(summary.eval_metrics["accuracy"])
    assert after.loss < before.loss
    assert before.perplexity is after.perplexity is None
    assert before.accuracy is not None and after.accuracy is not None and after.accuracy > before.accuracy
    assert after.metrics["rewards/margins"] > before.metrics["rewards/margins"]
    if whole.read_config().objective in ("dpo", "kto"):  # the base model differs by nothing from itself
        assert before.metrics["rewards/margins"] == 0
        assert before.accuracy == 0.5
