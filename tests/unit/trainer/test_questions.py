"""Rows as questions: which have an answer of their own, and that many are answered as one is."""

from pathlib import Path
from typing import Any

import pytest

from peft_studio import datasets
from peft_studio.config import Objective, TrainingConfig
from peft_studio.trainer.answers import written
from peft_studio.trainer.model import load_base, read_base
from peft_studio.trainer.questions import answers_of, questions_of, reference_of
from peft_studio.trainer.render import Renderer
from peft_studio.trainer.stop import Stopped, StopSignal
from tests.tiny import conversations, write_rows

USER, ANSWER = {"role": "user", "content": "who"}, {"role": "assistant", "content": " the cat "}


@pytest.mark.parametrize(
    ("row", "objective", "reference"),
    [
        ({"messages": [USER, ANSWER]}, "sft", "the cat"),
        ({"messages": [USER, ANSWER, USER, {"role": "assistant", "content": "a dog"}]}, "sft", "the cat"),
        ({"messages": [USER, ANSWER | {"weight": 0}, USER, ANSWER]}, "sft", ""),
        ({"prompt": "who ", "completion": "the cat"}, "sft", "the cat"),
        ({"instruction": "who", "output": "the cat"}, "sft", "the cat"),
        ({"text": "who the cat"}, "sft", ""),
        ({"prompt": "who", "chosen": "the cat", "rejected": "a dog"}, "dpo", "the cat"),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": [ANSWER]}, "dpo", "the cat"),
        ({"prompt": "who", "completion": "the cat", "label": True}, "kto", "the cat"),
        ({"prompt": "who", "completion": "a dog", "label": False}, "kto", ""),
        ({"prompt": "who"}, "grpo", ""),
    ],
)
def test_a_row_has_the_answer_that_is_to_be_learnt(
    row: dict[str, Any], objective: str, reference: str, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [row])
    (example,) = datasets.examples(str(path), None, Objective(objective))
    assert reference_of(example) == reference


def test_questions_of_any_length_are_answered_together_as_they_are_one_by_one(model: Path, tmp_path: Path) -> None:
    config = TrainingConfig(base_model=str(model), dataset_path="-")
    base = read_base(config, None)
    rows = list(datasets.examples(str(write_rows(tmp_path / "rows.jsonl", conversations(4)))))
    renderer, stock = Renderer(base.tokenizer, rows[0].layout), load_base(base, config)
    questions = questions_of(rows, base, renderer, 4, 96)
    alone = [written(stock, base, renderer, renderer.prompt(row)[0]) for row in rows]
    assert len(set(alone)) > 1
    for batch_size in (1, 3, 4):
        assert answers_of(stock, base, renderer, questions, 96, batch_size, StopSignal()) == alone


def test_only_so_many_rows_are_asked_and_of_a_long_question_the_end(model: Path, tmp_path: Path) -> None:
    base = read_base(TrainingConfig(base_model=str(model), dataset_path="-"), None)
    rows = [{"prompt": f"{'the cat ' * 200}{n}", "completion": "yes"} for n in range(5)]
    read = list(datasets.examples(str(write_rows(tmp_path / "rows.jsonl", rows))))
    questions = questions_of(read, base, Renderer(base.tokenizer, read[0].layout), 2, 28)
    assert [len(question.ids) for question in questions] == [100, 100]  # of the model's 128 places
    assert [base.tokenizer.decode(question.ids[-1:]) for question in questions] == ["0", "1"]


def test_answering_is_stopped_between_two_tokens(model: Path, tmp_path: Path) -> None:
    config = TrainingConfig(base_model=str(model), dataset_path="-")
    base = read_base(config, None)
    rows = list(datasets.examples(str(write_rows(tmp_path / "rows.jsonl", conversations(2)))))
    renderer, stop = Renderer(base.tokenizer, rows[0].layout), StopSignal()
    stop.set("enough")
    with pytest.raises(Stopped):
        answers_of(load_base(base, config), base, renderer, questions_of(rows, base, renderer, 2, 8), 8, 2, stop)
