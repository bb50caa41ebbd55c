"""Rows of the objectives beside sft: what each layout is read as, and what is wrong with a row."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from peft_studio.conversations import Message
from peft_studio.datasets import detect_format, examples, inspect
from peft_studio.errors import InvalidConfig
from peft_studio.objectives import AIMS, Objective
from peft_studio.row_formats import RowFormat

ASK = {"role": "user", "content": "Hi"}
YES, NO = {"role": "assistant", "content": "Hello"}, {"role": "assistant", "content": "What?"}
PAIR = {"prompt": "Hi", "chosen": " Hello", "rejected": " What?"}
TURNS = {"prompt": [ASK], "chosen": [YES], "rejected": [NO]}
WHOLE = {"chosen": [ASK, YES], "rejected": [ASK, NO]}
JUDGED = {"prompt": "Hi", "completion": " Hello", "label": True}


def read(folder: Path, *rows: dict[str, Any], objective: str | None = None, **columns: Any) -> Any:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(examples(str(path), columns.get("columns"), objective and Objective(objective)))


def refusal(folder: Path, *rows: dict[str, Any], objective: str | None = None) -> str:
    with pytest.raises(InvalidConfig) as caught:
        read(folder, *rows, objective=objective)
    assert caught.value.details["field"] == "dataset_path"
    assert caught.value.details["row"] == len(rows)
    return caught.value.message


@pytest.mark.parametrize(
    ("row", "layout"),
    [
        (PAIR, RowFormat.PREFERENCE),
        (TURNS, RowFormat.PREFERENCE),
        (WHOLE, RowFormat.PREFERENCE),
        (WHOLE | {"messages": [ASK, YES]}, RowFormat.PREFERENCE),
        (JUDGED, RowFormat.UNPAIRED_PREFERENCE),
        (JUDGED | {"label": "False"}, RowFormat.UNPAIRED_PREFERENCE),
        (JUDGED | {"label": "greeting"}, RowFormat.PROMPT_COMPLETION),
        (JUDGED | {"label": None}, RowFormat.PROMPT_COMPLETION),
        ({"text": "Hi", "label": "greeting"}, RowFormat.LABELLED_TEXT),
        ({"text": "Hi", "label": 0}, RowFormat.LABELLED_TEXT),
        ({"text": "Hi", "label": 0.5}, RowFormat.TEXT),
        ({"tokens": ["Hi"], "tags": ["O"]}, RowFormat.TOKEN_LABELS),
        ({"anchor": "Hi", "positive": "Hello", "negative": None}, RowFormat.PAIRS),
        ({"tokens": ["Hi"], "ner_tags": [0]}, RowFormat.TOKEN_LABELS),
    ],
)
def test_the_layout_follows_from_the_columns(row: dict[str, Any], layout: RowFormat) -> None:
    assert detect_format(row) is layout


def test_an_objective_sees_only_its_own_layouts() -> None:
    assert detect_format(JUDGED, objective=Objective.SFT) is RowFormat.PROMPT_COMPLETION
    assert detect_format(WHOLE | {"messages": [ASK, YES]}, objective=Objective.SFT) is RowFormat.MESSAGES
    for objective, aim in AIMS.items():
        assert aim.formats, objective


def test_texts_with_a_prompt_are_a_prompt_and_two_completions(tmp_path: Path) -> None:
    [example] = read(tmp_path, PAIR)
    assert [(text.prompt, text.completion) for text in example.texts] == [("Hi", " Hello"), ("Hi", " What?")]
    assert example.layout is RowFormat.PROMPT_COMPLETION


def test_texts_without_a_prompt_share_what_they_begin_with(tmp_path: Path) -> None:
    [example] = read(tmp_path, {"chosen": "Q: Hi A: Hello", "rejected": "Q: Hi A: What?"})
    assert [(text.prompt, text.completion) for text in example.texts] == [
        ("Q: Hi A:", " Hello"),
        ("Q: Hi A:", " What?"),
    ]


@pytest.mark.parametrize("row", [TURNS, WHOLE])
def test_messages_with_and_without_a_prompt_come_to_the_same(row: dict[str, Any], tmp_path: Path) -> None:
    [example] = read(tmp_path, row)
    chosen, rejected = example.texts
    assert chosen.messages == (Message("user", "Hi"), Message("assistant", "Hello"))
    assert rejected.messages == (Message("user", "Hi"), Message("assistant", "What?"))
    assert chosen.given == rejected.given == 1


@pytest.mark.parametrize(("label", "good"), [(True, True), (False, False), ("true", True), ("0", False), (1, True)])
def test_a_verdict_is_true_or_false(label: object, good: bool, tmp_path: Path) -> None:
    [example] = read(tmp_path, JUDGED | {"label": label}, objective="kto")
    assert example.label is good


def test_preferences_come_out_of_parquet_as_they_went_in(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([TURNS, TURNS]), tmp_path / "a.parquet")
    facts = inspect(str(tmp_path / "a.parquet"), objective=Objective.DPO)
    assert (facts.format, facts.rows, facts.conversational) == (RowFormat.PREFERENCE, 2, True)


def test_columns_of_other_names_can_be_mapped(tmp_path: Path) -> None:
    row = {"question": "Hi", "better": " Hello", "worse": " What?", "label": "x"}
    mapping = {"prompt": "question", "chosen": "better", "rejected": "worse"}
    [example] = read(tmp_path, row, columns=mapping, objective="dpo")
    assert example.texts[1].completion == " What?"


@pytest.mark.parametrize(
    ("row", "objective", "said"),
    [
        (PAIR | {"chosen": ""}, "dpo", "empty 'chosen'"),
        (PAIR | {"rejected": None}, "dpo", "has 'chosen' but no 'rejected'"),
        (PAIR | {"chosen": [YES]}, "dpo", "one is text and one is not"),
        (TURNS | {"rejected": [ASK]}, "dpo", "does not end with an assistant's turn"),
        (TURNS | {"chosen": []}, "dpo", "empty list of chosen"),
        ({"chosen": "Hi", "rejected": "Hi there"}, "dpo", "one is the beginning of the other"),
        ({"chosen": [ASK, YES], "rejected": [ASK]}, "dpo", "one is the beginning of the other"),
        (JUDGED, "dpo", "unpaired_preference; the objective dpo takes chosen and rejected"),
        (JUDGED | {"label": "maybe"}, "kto", "'label' that is neither true nor false"),
        (PAIR, "kto", "preference; the objective kto takes prompt and completion and label"),
        (PAIR, "sft", "preference; the objective sft takes messages"),
        ({"text": "Hi", "label": 0.5}, "sequence_classification", "neither a name nor a number of a class"),
        ({"text": "Hi", "label": -1}, "sequence_classification", "neither a name nor a number of a class"),
        ({"text": "Hi"}, "sequence_classification", "text; the objective sequence_classification takes text and label"),
        ({"tokens": ["Hi"], "tags": []}, "token_classification", "1 tokens and 0 tags"),
        ({"tokens": "Hi", "tags": ["O"]}, "token_classification", "not a list"),
        ({"tokens": ["Hi", ""], "tags": ["O", "O"]}, "token_classification", "a token that is empty"),
        ({"anchor": "Hi", "positive": ""}, "embedding", "an empty 'positive'"),
        ({"anchor": "Hi", "negative": "No"}, "embedding", "has 'anchor' but no 'positive'"),
        ({"question": "Hi"}, "simpo", "the objective simpo takes chosen and rejected"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(row: dict[str, Any], objective: str, said: str, tmp_path: Path) -> None:
    assert said in refusal(tmp_path, row, objective=objective)


def test_texts_and_messages_do_not_mix(tmp_path: Path) -> None:
    message = refusal(tmp_path, PAIR, TURNS)
    assert "row 2 is written as messages, the rows before it as prompt_completion" in message


def test_openais_preferences_are_read_as_everybody_elses(tmp_path: Path) -> None:
    row = {"input": {"messages": [ASK], "tools": []}, "preferred_output": [YES], "non_preferred_output": [NO]}
    assert read(tmp_path, row, objective="dpo") == read(tmp_path, TURNS, objective="dpo")
    with pytest.raises(InvalidConfig, match="'input' that is not an object with messages"):
        read(tmp_path, row | {"input": "Hi"})
