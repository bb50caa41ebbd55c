"""What the loop promises holds for each objective: it learns, resumes to the bit, stores, and is measured."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AutoPeftModelForCausalLM,
    AutoPeftModelForFeatureExtraction,
    AutoPeftModelForSequenceClassification,
    AutoPeftModelForTokenClassification,
)

from peft_studio.evaluation.bootstrap import FEWEST_ROWS
from peft_studio.evaluation.comparison import OF_ROWS
from peft_studio.objectives import AIMS, Head, Objective
from peft_studio.promotion_rules import sure_measures
from peft_studio.run_dir import RunDir
from peft_studio.trainer.objectives import CRITERIA
from peft_studio.trainer.outcome import STOPPED
from peft_studio.trainer.products import NARROW
from peft_studio.trainer.program import run as train
from tests.tiny import tiny_model
from tests.unit.trainer.objectives.jobs import ROWS, evaluated, job, reported, stored, trained
from tests.unit.trainer.stops import StopAtLook

STOCK: dict[Head, Any] = {
    Head.CAUSAL_LM: AutoPeftModelForCausalLM,
    Head.SEQUENCE: AutoPeftModelForSequenceClassification,
    Head.TOKENS: AutoPeftModelForTokenClassification,
    Head.NONE: AutoPeftModelForFeatureExtraction,
}
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
    assert len(looks) == whole.read_config().num_epochs
    assert looks[-1]["eval_loss"] < looks[0]["eval_loss"]
    if whole.read_config().objective is Objective.GRPO:  # it has no right answers, but better and worse ones
        steps = [each["reward"] for each in reported(whole) if "reward" in each]
        assert sum(steps[-4:]) > sum(steps[:4])
        return
    # Of thirty texts the right one is found by chance in three of a hundred.
    assert looks[-1]["eval_accuracy"] > (0.1 if whole.read_config().objective is Objective.EMBEDDING else 0.8)


def test_it_goes_on_after_a_stop_as_if_nothing_had_happened(whole: RunDir, tmp_path: Path, model: Path) -> None:
    run = job(tmp_path, model, whole.read_config().objective)
    looks = 60 if run.read_config().objective is Objective.GRPO else 16  # drawing answers looks at every token
    assert train(run, StopAtLook(looks)) == STOPPED
    assert reported(run)
    trained(run)
    assert reported(run) == reported(whole)
    ours, theirs = stored(run), stored(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("objective", OTHERS)
def test_it_makes_no_difference_how_a_step_falls_into_batches(objective: str, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", classifier_dropout=0.0)
    usual: dict[str, Any] = {"dropout": 0, "batch_size": 4, "gradient_accumulation_steps": 2}
    plain = {"packing": False, "loss_chunk_tokens": 0, "group_by_length": False}
    small = {"batch_size": 2, "gradient_accumulation_steps": 4}
    one, other = (
        trained(job(tmp_path / name, model, objective, **usual | changes, num_epochs=1))
        for name, changes in {"one": {}, "other": plain | small}.items()
    )
    # At the first step all rewards are nothing but rounding, and which is greater says nothing.
    for ours, theirs in zip(reported(one)[1:], reported(other)[1:], strict=True):
        assert ours == pytest.approx(theirs, rel=2e-3, abs=2e-4)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # stock PEFT's
def test_stock_peft_loads_its_adapter(whole: RunDir, model: Path) -> None:
    head = AIMS[whole.read_config().objective].head
    assert json.loads((whole.adapter / "adapter_config.json").read_text())["task_type"] == head
    labels = whole.adapter / "labels.json"
    more = {"num_labels": len(json.loads(labels.read_text()))} if labels.exists() else {}
    loaded = STOCK[head].from_pretrained(whole.adapter, **more or ({"num_labels": 1} if head is Head.SEQUENCE else {}))
    weights = {name.replace(".default", ""): weight for name, weight in loaded.named_parameters()}
    ours = stored(whole)
    assert any(name.endswith("lora_B.weight") for name in ours)
    assert any("score" in name for name in ours) == (head in (Head.SEQUENCE, Head.TOKENS))
    for name, weight in ours.items():
        there = weights.get(name, weights.get(name.replace(".score.", ".score.modules_to_save.")))
        assert there is not None and torch.equal(there, weight)


def test_what_is_known_row_by_row_is_compared_with_an_interval(whole: RunDir) -> None:
    evaluation = evaluated(whole)
    own = {name: one for name, one in evaluation.comparison.items() if name in OF_ROWS}
    sure = set(sure_measures(whole.read_config())) & set(OF_ROWS)
    for name, one in own.items():
        assert one.base == pytest.approx(getattr(evaluation.base, name), rel=1e-4)
        assert one.adapter == pytest.approx(getattr(evaluation.adapter, name), rel=1e-4)
        assert (one.differing is not None) == (name in sure)
    if evaluation.held_out_rows >= FEWEST_ROWS:
        assert {name for name, one in own.items() if one.low is not None} == sure
        assert all(one.low <= one.difference <= one.high for one in own.values() if one.low is not None)


def test_it_is_measured_before_and_after(whole: RunDir) -> None:
    evaluation, summary = evaluated(whole), whole.read_summary()
    assert evaluation.base and evaluation.adapter and summary
    assert bool(evaluation.answer) == (whole.read_config().objective != "embedding")
    before, after = evaluation.base, evaluation.adapter
    assert evaluation.held_out_rows == len(ROWS[whole.read_config().objective]) / 5
    assert after.loss == pytest.approx(summary.eval_loss, rel=1e-4)
    assert after.loss < before.loss
    assert before.perplexity is after.perplexity is None
    if whole.read_config().objective is Objective.GRPO:
        assert after.metrics["reward"] == pytest.approx(summary.eval_metrics["reward"])
        return
    assert after.accuracy == pytest.approx(summary.eval_metrics["accuracy"])
    assert before.accuracy is not None and after.accuracy is not None and after.accuracy >= before.accuracy
    margin = next((name for name in ("rewards/margins", "margin", "f1") if name in after.metrics), "")
    assert not margin or after.metrics[margin] > before.metrics[margin]
    if whole.read_config().objective in ("dpo", "kto"):  # the base model differs by nothing from itself
        assert before.metrics["rewards/margins"] == 0
        assert before.accuracy == 0.5


def test_a_wide_model_differs_by_nothing_from_itself_when_it_is_evaluated(tmp_path: Path) -> None:
    wide = tiny_model(tmp_path / "wide", hidden_size=2 * NARROW, num_hidden_layers=4)
    run = job(tmp_path, wide, "dpo", num_epochs=1)
    before = evaluated(trained(run)).base
    assert before
    assert before.metrics["rewards/margins"] == 0
    assert before.accuracy == 0.5
