"""Group relative policy optimization: how answers are drawn, what functions are asked, what goes wrong with them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from peft_studio import datasets
from peft_studio.errors import InvalidConfig
from peft_studio.events import Failure
from peft_studio.grpo import REWARDS, GrpoConfig, RewardConfig
from peft_studio.objectives import Objective
from peft_studio.trainer.model import Base, load_base, read_base
from peft_studio.trainer.outcome import FAILED, STOPPED
from peft_studio.trainer.program import run as train
from peft_studio.trainer.rewards import OWN, Answered, Rewards
from peft_studio.trainer.sampling import Ends, draws, sample
from peft_studio.trainer.stop import Stopped, StopSignal
from tests.tiny import make_run, questions, write_rows
from tests.unit.trainer.objectives.jobs import reported, trained
from tests.unit.trainer.stops import StopAtLook

ENDS = Ends((1, 2), 1)


def settings(**more: Any) -> GrpoConfig:
    sizes = {"num_generations": 3, "max_completion_length": 6}
    return GrpoConfig.model_validate({"rewards": [{"function": "json"}], **sizes, **more})


def judged(function: str, answer: str, columns: dict[str, Any] | None = None, **options: Any) -> float:
    rewards = Rewards([RewardConfig(function=function, options=options)])
    [[number]] = rewards.of(Answered(1, "?", [answer], [[5, 6, 7]], columns or {}))
    return number


@pytest.mark.parametrize(
    ("function", "answer", "options", "expected"),
    [
        ("exact_match", " Kent\n", {}, 1),
        ("exact_match", "kent", {}, 0),
        ("exact_match", "KENT", {"ignore_case": True}, 1),
        ("exact_match", "Essex", {"column": "other"}, 1),
        ("contains", "It is in Kent.", {}, 1),
        ("contains", "It is in kent.", {}, 0),
        ("number_match", "3 and 4 make 1,200.50", {"column": "sum"}, 1),
        ("number_match", "I do not know", {"column": "sum"}, 0),
        ("regex", "<answer>4</answer>", {"pattern": "<answer>.*</answer>", "whole": True}, 1),
        ("regex", "so: <answer>4</answer>", {"pattern": "<answer>.*</answer>", "whole": True}, 0),
        ("length", "four", {"at_least": 8, "at_most": 10}, 0.5),
        ("length", "x" * 40, {"at_most": 10}, 0.25),
        ("length", "two words", {"at_most": 2, "unit": "words"}, 1),
        ("length", "whatever", {"at_most": 2, "unit": "tokens"}, 2 / 3),
        ("json", '{"a": 1, "b": 2}', {"keys": "a, b"}, 1),
        ("json", "[1]", {"keys": "a"}, 0),
        ("json", "{'a': 1}", {}, 0),
    ],
)
def test_each_function_judges_as_it_says(function: str, answer: str, options: dict[str, Any], expected: float) -> None:
    columns = {"answer": "Kent", "other": "Essex", "sum": "= 1200.5"}
    assert judged(function, answer, columns, **options) == pytest.approx(expected)


def test_every_function_of_the_table_is_one_of_the_trainers() -> None:
    assert list(OWN) == list(REWARDS)


@pytest.fixture
def base(tmp_path: Path, model: Path) -> tuple[Base, Any]:
    config = make_run(tmp_path / "sampled", model, write_rows(tmp_path / "x.jsonl", questions(1))).read_config()
    base = read_base(config, None)
    return base, load_base(base, config).eval()


def test_answers_do_not_depend_on_what_stands_beside_them(base: tuple[Base, Any]) -> None:
    _, model = base
    prompts = [np.array([4, 9, 30, 31]), np.array([77])]
    drawn = [draws(settings(), 0, 5, number) for number in (1, 2)]
    both = sample(model, prompts, drawn, ENDS, settings(), StopSignal())
    for prompt, own, together in zip(prompts, drawn, both, strict=True):
        [alone] = sample(model, [prompt], [own], ENDS, settings(), StopSignal())
        assert [answer.tolist() for answer in alone] == [answer.tolist() for answer in together]
    assert len({tuple(answer) for answer in both[0]}) == 3
    assert not torch.equal(drawn[0], draws(settings(), 0, 6, 1))


def test_answers_are_drawn_as_likely_as_the_model_finds_them(base: tuple[Base, Any]) -> None:
    _, model = base
    many = settings(num_generations=64, max_completion_length=1, temperature=0.3)
    drawn = [draws(many, 0, 0, number) for number in range(40)]
    found = sample(model, [np.array([4, 9])] * 40, drawn, ENDS, many, StopSignal())
    with torch.no_grad():
        shares = (model(torch.tensor([[4, 9]])).logits[0, -1] / 0.3).softmax(-1)
    counts = np.bincount([answer[0] for some in found for answer in some], minlength=len(shares)) / (40 * 64)
    assert np.abs(counts - shares.numpy()).max() < 0.03
    few = settings(num_generations=16, max_completion_length=1, top_k=2)
    [answers] = sample(model, [np.array([4, 9])], [draws(few, 0, 0, 1)], ENDS, few, StopSignal())
    assert {int(answer[0]) for answer in answers} <= set(shares.topk(2).indices.tolist())


def test_a_stop_is_heard_between_two_tokens(base: tuple[Base, Any]) -> None:
    stop = StopSignal()
    stop.set("enough")
    with pytest.raises(Stopped):
        sample(base[1], [np.array([4])], [draws(settings(), 0, 0, 1)], ENDS, settings(), stop)


def test_a_prompt_comes_in_any_layout_and_brings_its_columns(tmp_path: Path) -> None:
    ask, say = {"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}
    for row, columns in (
        ({"prompt": "What?", "completion": "That."}, {"completion": "That."}),
        ({"prompt": [ask], "answer": 4}, {"answer": 4}),
        ({"messages": [ask, say]}, {"completion": "That."}),
        ({"instruction": "What?", "input": "x", "output": "That."}, {"output": "That."}),
    ):
        path = write_rows(tmp_path / "rows.jsonl", [row])
        [example] = datasets.examples(str(path), objective=Objective.GRPO)
        assert (example.format, dict(example.columns)) == ("prompt", columns)
        assert datasets.inspect(str(path), objective=Objective.GRPO).format == "prompt"
    renamed = write_rows(tmp_path / "rows.jsonl", [{"question": "What?", "solution": "That."}])
    [example] = datasets.examples(str(renamed), {"prompt": "question"}, Objective.GRPO)
    assert (example.texts[0].prompt, dict(example.columns)) == ("What?", {"solution": "That."})


def raises(**_: Any) -> list[float]:
    raise KeyError("solution")


def gives_too_few(completions: Sequence[str], **_: Any) -> list[float]:
    return [1.0] * (len(completions) - 1)


def gives_nan(completions: Sequence[str], **_: Any) -> list[float]:
    return [float("nan")] * len(completions)


def gives_a_number(**_: Any) -> float:
    return 1.0


def counts_es(
    completions: Sequence[str], prompts: Sequence[str], answer: Sequence[str], **_: Any
) -> list[float | None]:
    assert len(completions) == len(prompts) == len(answer)
    return [None if not text else text.count("e") / len(text) for text in completions]


def job(folder: Path, model: Path, function: str, **config: Any) -> Any:
    rows = write_rows(folder / "rows.jsonl", questions(4))
    grpo = {"rewards": [{"function": function}], "num_generations": 4, "max_completion_length": 4}
    return make_run(folder / "run", model, rows, objective="grpo", **{"max_steps": 1, "grpo": grpo} | config)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("raises", "raised KeyError: 'solution'"),
        ("gives_too_few", "returned 3 numbers for 4 answers"),
        ("gives_nan", "returned nan; None is no judgement"),
        ("gives_a_number", "returned float, not a list of numbers"),
    ],
)
def test_functions_that_fail_say_so_with_the_row(function: str, said: str, tmp_path: Path, model: Path) -> None:
    run = job(tmp_path, model, f"{__name__}:{function}")
    assert train(run, StopSignal()) == FAILED
    failure = run.read_failure()
    assert isinstance(failure, Failure)
    assert said in failure.error and " row " in failure.error
    assert "grpo.rewards" in (failure.details or "")


def test_an_own_function_sees_prompts_and_columns_and_may_have_nothing_to_say(tmp_path: Path, model: Path) -> None:
    run = trained(job(tmp_path, model, f"{__name__}:counts_es"))
    assert f"rewards/{__name__}:counts_es/mean" in reported(run)[0]


def test_a_function_that_is_not_there_is_told_before_anything_is_trained(tmp_path: Path, model: Path) -> None:
    run = job(tmp_path, model, "no_such_module:judge")
    assert train(run, StopSignal()) == FAILED
    assert "cannot be imported" in (run.read_failure() or Failure(job_id="x", error="", code="")).error


def test_rows_without_the_column_are_named() -> None:
    rewards = Rewards([RewardConfig(function="exact_match")])
    with pytest.raises(InvalidConfig, match="row 3 has no 'answer'"):
        rewards.require_columns(3, {"other": 1})


def test_prompts_that_are_too_long_keep_their_ends(tmp_path: Path, model: Path) -> None:
    run = job(tmp_path, model, f"{__name__}:counts_es", max_length=8)
    summary = trained(run).read_summary()
    assert summary and summary.truncated_rows > 0
    again = job(tmp_path, model, f"{__name__}:counts_es")
    grpo = {"rewards": [{"function": "json"}], "max_completion_length": 128}
    again = make_run(tmp_path / "no-room", model, tmp_path / "rows.jsonl", objective="grpo", grpo=grpo)
    assert train(again, StopSignal()) == FAILED
    failure = again.read_failure()
    assert failure and "grpo.max_completion_length" in (failure.details or "")


def test_a_stop_while_answers_are_drawn_loses_nothing(tmp_path: Path, model: Path) -> None:
    """At any look, also between the two steps that are taken on the same answers."""
    grpo = {"rewards": [{"function": "length", "options": {"at_most": 2}}], "num_iterations": 2, "beta": 0.1}
    config = {"max_steps": 4, "grpo": grpo | {"num_generations": 4, "max_completion_length": 4}}
    folders = [tmp_path / name for name in ("whole", "stopped")]
    for folder in folders:
        folder.mkdir()
    whole, stopped = (job(folder, model, "json", **config) for folder in folders)
    trained(whole)
    for look in (6, 14):
        assert train(stopped, StopAtLook(look)) == STOPPED
    trained(stopped)
    assert reported(stopped) == reported(whole)
