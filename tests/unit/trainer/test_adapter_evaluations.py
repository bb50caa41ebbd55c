"""Evaluations of any stored adapter: which rows, which measures, and tasks of lm-evaluation-harness."""

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from peft_studio.datasets import content_hash
from peft_studio.errors import InvalidConfig
from peft_studio.evaluation.comparison import Bootstrap
from peft_studio.evaluations import EvaluationTask, EvaluationWanted, Harness
from peft_studio.run_dir import RunDir
from peft_studio.trainer.evaluate_adapter import evaluate_adapter
from peft_studio.trainer.harness import compare_scores, require_harness, scores_of
from peft_studio.trainer.outcome import DONE
from peft_studio.trainer.program import run as train
from peft_studio.trainer.stop import StopSignal
from tests.tiny import make_run, tiny_model, write_rows

SAID = [{"role": "user", "content": "who sleeps"}, {"role": "assistant", "content": "the red cat"}]
JOB: dict[str, Any] = {"num_epochs": 25, "learning_rate": 1e-2, "rank": 16, "dropout": 0, "checkpoint_steps": 1000}


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """An adapter that knows one answer by heart."""
    folder = tmp_path_factory.mktemp("learned")
    rows = write_rows(folder / "rows.jsonl", [{"messages": SAID}] * 8)
    run = make_run(folder / "run", tiny_model(folder / "model"), rows, validation_split=0.25, **JOB)
    assert train(run, StopSignal()) == DONE, run.read_failure()
    return run


def task(learned: RunDir, *, held_out: bool = False, **wanted: Any) -> EvaluationTask:
    asked = EvaluationWanted(adapter_id="adapter_1", max_new_tokens=8, **wanted)
    config = learned.read_config()
    return EvaluationTask(
        wanted=asked,
        adapter=str(learned.adapter),
        config=config,
        held_out=held_out,
        dataset_sha256=content_hash(config.dataset_path),
    )


def unheard(step: str, progress: float) -> None:
    assert 0 < progress < 1, step


def test_an_adapter_is_measured_beside_its_base_model_on_all_rows(learned: RunDir) -> None:
    steps: list[str] = []
    found = evaluate_adapter(task(learned), lambda step, _: steps.append(step))
    comparison = found.result.evaluation.comparison
    assert steps == ["base model", "adapter"]
    assert (comparison["exact_match"].base, comparison["exact_match"].adapter) == (0, 1)
    assert comparison["loss"].rows == 8 and comparison["loss"].high is not None and comparison["loss"].high < 0
    assert [(pair.asked, pair.reference, pair.adapter) for pair in found.pairs] == [
        ("who sleeps", "the red cat", "the red cat")
    ] * 8
    assert all(pair.base != "the red cat" for pair in found.pairs)


def test_of_its_own_data_only_the_rows_are_used_that_were_held_out(learned: RunDir) -> None:
    assert evaluate_adapter(task(learned, held_out=True), unheard).result.evaluation.held_out_rows == 2


def test_of_too_many_rows_some_are_drawn_and_that_is_said(learned: RunDir) -> None:
    found = evaluate_adapter(task(learned, rows=5, measures=["loss"], generation_rows=0), unheard).result
    assert found.evaluation.held_out_rows == 5
    assert found.notes == ["Of 8 rows 5 were drawn."]
    assert set(found.evaluation.comparison) == {"loss"}


def samples(*values: float) -> dict[str, Any]:
    documents = [{"doc_id": n, "acc": value, "metrics": ["acc"], "filter": "none"} for n, value in enumerate(values)]
    return {"quiz": [*documents, {"doc_id": 99, "ppl": (1.0, 2), "metrics": ["ppl"]}]}


def test_scores_of_tasks_are_compared_document_by_document() -> None:
    base, adapter = scores_of(samples(0, 0, 1, 0, 1, 0)), scores_of(samples(1, 1, 1, 0, 1, 1))
    found = compare_scores(base, adapter, Bootstrap())
    assert list(found) == ["quiz/acc"], "what is no number of a single document is left out"
    quiz = found["quiz/acc"]
    assert (quiz.base, quiz.adapter, quiz.rows, quiz.better) == (
        pytest.approx(1 / 3),
        pytest.approx(5 / 6),
        6,
        "higher",
    )
    assert quiz.low is not None and quiz.low < 0.5 < (quiz.high or 0)


def test_a_text_that_has_become_likelier_is_a_lower_perplexity_and_readings_of_an_answer_are_kept_apart() -> None:
    def said(likelihood: float, strict: float) -> dict[str, list[dict[str, Any]]]:
        text = [{"doc_id": n, "perplexity": likelihood, "metrics": ["perplexity"]} for n in range(6)]
        read = [
            {"doc_id": 0, "em": one, "metrics": ["em"], "filter": how} for how, one in (("strict", strict), ("any", 1))
        ]
        return {"story": text, "sums": read}

    found = compare_scores(scores_of(said(-2.0, 0)), scores_of(said(-1.0, 1)), Bootstrap())
    assert list(found) == ["story/perplexity", "sums/any/em", "sums/strict/em"]
    story = found["story/perplexity"]
    assert (story.base, story.adapter, story.better) == (pytest.approx(math.e**2), pytest.approx(math.e), "lower")
    assert (found["sums/strict/em"].base, found["sums/any/em"].base) == (0, 1)


def test_rows_that_are_others_than_when_they_were_named_are_refused(learned: RunDir) -> None:
    changed = task(learned).model_copy(update={"dataset_sha256": "0" * 64})
    with pytest.raises(InvalidConfig, match="changed") as refused:
        evaluate_adapter(changed, unheard)
    assert refused.value.details["field"] == "dataset"


@pytest.mark.skipif(find_spec("lm_eval") is not None, reason="it is installed here")
def test_where_the_harness_is_not_installed_that_is_said_with_the_field() -> None:
    with pytest.raises(InvalidConfig) as refused:
        require_harness()
    assert refused.value.details["field"] == "lm_eval"
    assert "pip install" in refused.value.details["issue"]


@pytest.mark.filterwarnings("ignore")
def test_the_harness_runs_a_task_of_ones_own_on_both_models(learned: RunDir, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    documents = [{"question": f"who sleeps {n}", "choices": ["the red cat", "a blue dog"], "gold": 0} for n in range(6)]
    (tmp_path / "quiz.jsonl").write_text("".join(json.dumps(one) + "\n" for one in documents))
    (tmp_path / "quiz.yaml").write_text(
        f"task: quiz\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {tmp_path}/quiz.jsonl\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{question}}:'\ndoc_to_choice: choices\n"
        "doc_to_target: gold\nmetric_list:\n  - metric: acc\n"
    )
    asked = task(learned, measures=["loss"], generation_rows=0, lm_eval=Harness(tasks=["quiz"], limit=5))
    found = evaluate_adapter(asked, unheard, tmp_path).result
    assert set(found.lm_eval) == {"quiz/acc"}
    assert found.lm_eval["quiz/acc"].rows == 5
    with pytest.raises(InvalidConfig, match="no task 'nonsense'"):
        unknown = task(learned, measures=["loss"], generation_rows=0, lm_eval=Harness(tasks=["nonsense"]))
        evaluate_adapter(unknown, unheard, tmp_path)
