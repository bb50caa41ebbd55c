import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from peft_studio.evaluation.comparison import Bootstrap, Generation, Measure
from peft_studio.jobs import Evaluation, HeldOut
from peft_studio.promotion import DeployIf, decide
from peft_studio.run_dir import RunDir
from peft_studio.trainer import job_evaluation
from peft_studio.trainer.data import encode
from peft_studio.trainer.loss import row_qualities
from peft_studio.trainer.model import load_base, read_base
from peft_studio.trainer.outcome import DONE, FAILED
from peft_studio.trainer.prepare import read_examples
from peft_studio.trainer.program import read_job
from peft_studio.trainer.program import run as train
from peft_studio.trainer.render import Renderer
from peft_studio.trainer.stop import StopSignal
from tests.tiny import conversations, make_run, write_rows


def evaluated(run: RunDir) -> Evaluation:
    assert train(run, StopSignal()) == DONE, run.read_failure()
    assert job_evaluation.run(run, run.adapter) == DONE, run.read_failure()
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


def test_accuracy_is_the_share_of_held_out_answer_tokens_that_the_model_would_have_chosen(
    learned: RunDir, model: Path
) -> None:
    evaluation = evaluated(learned)
    assert evaluation.base is not None and evaluation.adapter is not None
    tokenizer, base = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    prompt = tokenizer("<s><|user|>\nwho sleeps<|end|>\n<|assistant|>\n")["input_ids"]
    answer = torch.tensor(tokenizer("the red cat<|end|>")["input_ids"])
    whole = torch.tensor([[*prompt, *answer]])

    def share(model: Any) -> float:
        chosen = model(whole).logits[0, len(prompt) - 1 : -1].argmax(-1)
        return (chosen == answer).double().mean().item()

    assert evaluation.base.accuracy == pytest.approx(share(base))
    assert evaluation.adapter.accuracy == pytest.approx(share(PeftModel.from_pretrained(base, learned.adapter))) == 1


def test_accuracy_counts_each_token_once_however_the_rows_are_divided_into_batches(model: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", model, write_rows(tmp_path / "rows.jsonl", conversations(14)))
    config, plan = read_job(run)
    base = read_base(config, plan)
    examples, _ = read_examples(config, plan)
    rows = encode(examples, base, Renderer(base.tokenizer, examples[0].format), 128).rows
    stock = load_base(base, config).eval()
    right = [
        (stock(torch.from_numpy(row.ids)[None]).logits[0, :-1].argmax(-1).numpy() == row.ids[1:])[row.learn[1:]]
        for row in rows
    ]
    share = sum(int(some.sum()) for some in right) / sum(len(some) for some in right)
    assert 0 < share < 1
    for batch_size in (1, 3, 14):
        whole = row_qualities(stock, rows, batch_size, StopSignal())
        assert whole.mean.accuracy == pytest.approx(share)
        in_chunks = row_qualities(stock, rows, batch_size, StopSignal(), chunk=3)
        for name in ("losses", "right", "tokens"):
            assert getattr(in_chunks, name) == pytest.approx(getattr(whole, name), rel=1e-5)


def test_the_parts_of_a_long_row_are_one_row_to_an_interval(model: Path, tmp_path: Path) -> None:
    long = {"prompt": "who sleeps", "completion": "the red cat and the blue dog " * 12}
    rows = write_rows(tmp_path / "rows.jsonl", [long] * 12)
    run = make_run(tmp_path / "run", model, rows, max_length=24, long_rows="split", validation_split=0.5, max_steps=1)
    evaluation = evaluated(run)
    assert (evaluation.held_out_rows, evaluation.comparison["loss"].rows) == (6, 6)
    summary = run.read_summary()
    assert summary is not None and summary.held_out_rows > 6


def test_a_loss_that_is_no_number_is_none_and_does_not_pass_a_gate() -> None:
    nothing = Evaluation(held_out_rows=9, base=HeldOut(loss=None, tokens=9), adapter=HeldOut(loss=None, tokens=9))
    assert Evaluation.model_validate_json(nothing.model_dump_json()) == nothing
    assert not decide(DeployIf(measure=Measure.LOSS, min_gain=0), nothing.comparison, 0.95).allowed


def test_an_evaluation_of_before_accuracy_was_measured_is_still_read() -> None:
    old = {"held_out_rows": 1, "base": {"loss": 1.0, "perplexity": 2.7, "tokens": 3}}
    held_out = Evaluation.model_validate(old).base
    assert held_out is not None
    assert held_out.accuracy is None


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
    assert job_evaluation.run(run, tmp_path / "nothing") == FAILED
    failure = run.read_failure()
    assert failure is not None
    assert "no adapter" in failure.error


def test_both_models_are_compared_on_the_same_rows_by_every_measure(learned: RunDir) -> None:
    evaluation = evaluated(learned)
    assert evaluation.base and evaluation.adapter
    assert set(evaluation.comparison) == set(Measure)
    loss, match = evaluation.comparison["loss"], evaluation.comparison["exact_match"]
    assert (loss.base, loss.adapter) == (evaluation.base.loss, evaluation.adapter.loss)
    assert loss.rows == match.rows == 2
    assert (match.base, match.adapter, match.difference) == (0, 1, 1)
    assert evaluation.comparison["chrf"].adapter == pytest.approx(100)
    assert evaluation.generation == Generation(rows=2, max_new_tokens=128, cut=0)
    assert loss.low is None, "two rows are too few to say how sure that is"


def test_intervals_are_those_of_the_rows_and_repeat(tmp_path: Path, model: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", conversations(24))
    settings = {"generation_rows": 3, "max_new_tokens": 4, "bootstrap": {"resamples": 300, "confidence": 0.9}}
    run = make_run(tmp_path / "run", model, rows, validation_split=0.5, num_epochs=1, evaluation=settings)
    evaluation = evaluated(run)
    assert evaluation.bootstrap == Bootstrap(resamples=300, confidence=0.9)
    loss, match = evaluation.comparison["loss"], evaluation.comparison["exact_match"]
    assert (loss.rows, match.rows) == (12, 3)
    assert loss.low is not None and loss.high is not None and loss.low < loss.difference < loss.high
    assert evaluation.generation and evaluation.generation.rows == 3 and evaluation.generation.cut > 0
    assert job_evaluation.run(run, run.adapter) == DONE
    assert run.read_evaluation() == evaluation


def test_no_answers_are_written_where_none_are_asked_for(tmp_path: Path, model: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", conversations(12))
    job: dict[str, Any] = {"validation_split": 0.5, "num_epochs": 1, "evaluation": {"generation_rows": 0}}
    evaluation = evaluated(make_run(tmp_path / "run", model, rows, **job))
    assert set(evaluation.comparison) == {"loss", "perplexity", "accuracy"}
    assert evaluation.generation is None
