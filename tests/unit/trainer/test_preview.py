"""Previews: rows as the trainer shows them to the model, token by token."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peft_studio.config import LongRows, TrainingConfig
from peft_studio.datasets import examples
from peft_studio.errors import InvalidConfig
from peft_studio.previews import DatasetPreview, PreviewRequest
from peft_studio.trainer import preview as program
from peft_studio.trainer.data import encode
from peft_studio.trainer.model import read_base
from peft_studio.trainer.preview import preview
from peft_studio.trainer.render import Renderer
from tests.model_folders import CONFIG
from tests.tiny import conversations, labelled, preferences, tiny_tokenizer, write_rows


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Tokenizer and configuration: there are no weights to be loaded."""
    import json

    folder = tmp_path / "model"
    tiny_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def of(model: Path, rows: Path, **changes: Any) -> DatasetPreview:
    request = {"path": str(rows), "base_model": str(model), "model_source": "local", "limit": 3, "max_length": 64}
    return preview(PreviewRequest.model_validate(request | changes))


def test_the_tokens_and_their_marks_are_the_trainers_own(model: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", conversations(5))
    base = read_base(TrainingConfig(base_model=str(model), dataset_path=str(rows)), None)
    some = list(examples(str(rows)))
    trained = encode(some, base, Renderer(base.tokenizer, some[0].format), 64).rows
    shown = of(model, rows, limit=5).samples
    assert [sample.row for sample in shown] == [1, 2, 3, 4, 5]
    for sample, row in zip(shown, trained, strict=True):
        assert [token.id for token in sample.tokens] == row.ids.tolist()
        assert [token.loss for token in sample.tokens] == np.append([False], row.learn[1:]).tolist()
        assert sample.supervised_tokens == row.supervised > 0


def test_only_the_answer_carries_loss(model: Path, tmp_path: Path) -> None:
    rows = write_rows(
        tmp_path / "rows.jsonl",
        [{"messages": [{"role": "user", "content": "who is"}, {"role": "assistant", "content": "my cat 🐈"}]}],
    )
    (sample,) = of(model, rows).samples
    assert "".join(token.text for token in sample.tokens if token.loss) == "my cat 🐈<|end|>"
    assert "".join(token.text for token in sample.tokens).startswith(sample.text)


@pytest.mark.parametrize("text", ["the cat", "Grüße 🌍🌍 a\n\n  b\t", " leading", "é́"])
def test_the_tokens_spell_the_row(model: Path, tmp_path: Path, text: str) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": text}])
    (sample,) = of(model, rows).samples
    assert sample.text == text
    assert [token.text for token in sample.tokens][-1] == "</s>"
    assert "".join(token.text for token in sample.tokens[:-1]) == text


def test_what_is_cut_there_twice_or_not_trained_on_is_told(model: Path, tmp_path: Path) -> None:
    short = {"prompt": "the cat", "completion": " sleeps"}
    long_answer = {"prompt": "the cat", "completion": " sleeps" * 50}
    long_prompt = {"prompt": "the cat " * 50, "completion": "sleeps"}
    rows = write_rows(tmp_path / "rows.jsonl", [short, long_answer, short, long_prompt, short])
    found = of(model, rows, max_length=32, limit=2)
    assert found.examined_rows == 5
    assert found.duplicate_rows == [3, 5]
    assert found.truncated_rows == 2
    assert found.empty_rows == [4]
    assert [sample.truncated for sample in found.samples] == [False, True]
    assert len(found.samples[1].tokens) == 32
    assert found.tokens == 3 * len(found.samples[0].tokens) + 2 * 32
    supervised = 3 * found.samples[0].supervised_tokens + found.samples[1].supervised_tokens
    assert found.supervised_share == round(supervised / found.tokens, 4)


def test_long_rows_become_what_training_makes_of_them(model: Path, tmp_path: Path) -> None:
    short = {"prompt": "the cat", "completion": " sleeps"}
    long = {"prompt": "the cat", "completion": " sleeps" * 50}
    rows = write_rows(tmp_path / "rows.jsonl", [long, short])
    base = read_base(TrainingConfig(base_model=str(model), dataset_path=str(rows)), None)
    some = list(examples(str(rows)))
    for becomes in LongRows:
        trained = encode(some, base, Renderer(base.tokenizer, some[0].format), 32, becomes)
        found = of(model, rows, max_length=32, long_rows=becomes, limit=2)
        assert [[token.id for token in sample.tokens] for sample in found.samples] == [
            row.ids.tolist() for row in trained.rows
        ]
        told = (found.truncated_rows, found.dropped_rows, found.split_rows)
        assert told == (trained.truncated, trained.dropped, trained.split)
        learnt = "".join(token.text for sample in found.samples for token in sample.tokens if token.loss)
        assert (learnt.count(" sleeps") == 51) == (becomes is LongRows.SPLIT)


def test_nothing_is_left_where_all_rows_are_dropped(model: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": "the cat " * 50}])
    found = of(model, rows, max_length=32, long_rows="drop")
    assert (found.samples, found.dropped_rows, found.tokens, found.supervised_share) == ([], 1, 0, 0)


def test_columns_of_other_names_are_taken(model: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [{"question": "the cat", "answer": " sleeps", "text": "no"}])
    (sample,) = of(model, rows, columns={"prompt": "question", "completion": "answer"}).samples
    assert sample.text == "the cat sleeps"
    with pytest.raises(InvalidConfig, match="has no column 'reply'"):
        of(model, rows, columns={"prompt": "question", "completion": "reply"})


def test_not_all_of_a_large_data_set_is_looked_at(model: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": f"the cat {n}"} for n in range(program.EXAMINED_ROWS + 10)])
    assert of(model, rows).examined_rows == program.EXAMINED_ROWS
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": "a " * (program.EXAMINED_CHARACTERS // 8)}] * 9)
    assert of(model, rows, max_length=8).examined_rows == 5


def test_what_training_would_refuse_is_refused(model: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", conversations(1))
    tiny_tokenizer(template=None).save_pretrained(model)
    (model / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(InvalidConfig, match="no chat template"):
        of(model, rows)


def test_a_row_of_preferences_is_shown_with_both_answers(model: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", preferences(5))
    shown = of(model, rows, limit=2)
    assert [sample.row for sample in shown.samples] == [1, 1, 2, 2]
    assert shown.examined_rows == 5
    assert all(sample.text.startswith("<s>") and sample.supervised_tokens for sample in shown.samples)


def test_labelled_texts_are_shown_as_they_are_read_and_none_of_them_is_empty(model: Path, tmp_path: Path) -> None:
    rows = labelled(4)
    shown = of(model, write_rows(tmp_path / "rows.jsonl", rows), limit=4)
    assert [sample.text for sample in shown.samples] == [row["text"] for row in rows]
    assert shown.empty_rows == []
    assert shown.supervised_share == 0
