import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from peft_studio.jobs import Evaluation
from peft_studio.run_dir import RunDir
from peft_studio.trainer import evaluate
from peft_studio.trainer.outcome import DONE, FAILED
from peft_studio.trainer.program import run as train
from peft_studio.trainer.stop import StopSignal
from tests.tiny import make_run, write_rows


def evaluated(run: RunDir) -> Evaluation:
    assert train(run, StopSignal()) == DONE, run.read_failure()
    assert evaluate.run(run, run.adapter) == DONE, run.read_failure()
    evaluation = run.read_evaluation()
    assert evaluation is not None
    return evaluation


def always(answer: str, count: int = 8) -> list[dict[str, Any]]:
    turns = [{"role": "user", "content": "who sleeps"}, {"role": "assistant", "content": answer}]
    return [{"messages": turns}] * count


@pytest.fixture
def learned(tmp_path: Path, model: Path) -> RunDir:
    """A job small enough to be learned by heart."""
    rows = write_rows(tmp_path / "rows.jsonl", always("the red cat"))
    job: dict[str, Any] = {"num_epochs": 25, "learning_rate": 1e-2, "rank": 16, "dropout": 0}
    return make_run(tmp_path / "run", model, rows, validation_split=0.25, checkpoint_steps=100, **job)


def test_the_adapter_answers_as_it_was_taught_and_stops_where_the_turn_ends(learned: RunDir) -> None:
    evaluation = evaluated(learned)
    assert evaluation.answer is not None
    assert evaluation.answer.prompt == "who sleeps"
    assert evaluation.answer.adapter == "the red cat"
    assert evaluation.answer.base != "the red cat"


def test_loss_and_perplexity_are_those_of_the_held_out_answers(learned: RunDir, model: Path) -> None:
    evaluation = evaluated(learned)
    assert evaluation.held_out_rows == 2
    assert evaluation.base is not None
    assert evaluation.adapter is not None
    assert evaluation.adapter.loss < evaluation.base.loss - 1
    assert evaluation.base.perplexity == pytest.approx(math.exp(evaluation.base.loss))

    tokenizer, stock = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    prompt = tokenizer("<s><|user|>\nwho sleeps<|end|>\n<|assistant|>\n")["input_ids"]
    whole = torch.tensor([[*prompt, *tokenizer("the red cat<|end|>")["input_ids"]]])
    labels = whole.clone()
    labels[0, : len(prompt)] = -100
    assert evaluation.base.loss == pytest.approx(stock(whole, labels=labels).loss.item(), rel=1e-5)
    assert evaluation.base.tokens == 2 * (whole.shape[1] - len(prompt))


def test_the_last_evaluation_in_training_is_that_of_the_stored_adapter(learned: RunDir) -> None:
    evaluation = evaluated(learned)
    summary = learned.read_summary()
    assert summary is not None
    assert evaluation.adapter is not None
    assert evaluation.adapter.loss == pytest.approx(summary.eval_loss, rel=1e-5)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "who sleeps: ", "completion": "the cat"},
        {"instruction": "who sleeps", "output": "the cat"},
        {"text": "who sleeps the cat sleeps"},
    ],
)
@pytest.mark.parametrize("test_prompt", [None, "what is red"])
def test_without_held_out_rows_there_is_an_answer_all_the_same(
    row: dict[str, str], test_prompt: str | None, tmp_path: Path, plain_model: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [row] * 4)
    evaluation = evaluated(make_run(tmp_path / "run", plain_model, rows, test_prompt=test_prompt, num_epochs=1))
    assert (evaluation.base, evaluation.adapter, evaluation.held_out_rows) == (None, None, 0)
    assert evaluation.answer is not None
    assert evaluation.answer.prompt.startswith(test_prompt or "who sleep")


def test_an_adapter_that_is_not_there_is_a_failure(tmp_path: Path, model: Path, rows: Path) -> None:
    run = make_run(tmp_path / "run", model, rows)
    assert evaluate.run(run, tmp_path / "nothing") == FAILED
    failure = run.read_failure()
    assert failure is not None
    assert "no adapter" in failure.error
