"""Conversations with tools, as OpenAI, ShareGPT and columnar files write them, and columns of other names."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from peft_studio.datasets import Example, examples, inspect
from peft_studio.errors import InvalidConfig

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}


def written(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(tmp_path: Path, row: dict[str, Any]) -> Example:
    return next(examples(written(tmp_path / "rows.jsonl", row)))


def refusal(tmp_path: Path, row: dict[str, Any]) -> str:
    with pytest.raises(InvalidConfig) as caught:
        read(tmp_path, row)
    assert caught.value.details["row"] == 1
    return caught.value.message


def test_calls_are_read_alike_however_their_arguments_are_written(tmp_path: Path) -> None:
    as_text = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    turns = [
        {"role": "user", "content": "Rome?"},
        {"role": "assistant", "content": None, "tool_calls": [as_text]},
        {"role": "tool", "name": "weather", "content": "sunny", "tool_call_id": "c1"},
        {"role": "assistant", "content": "It is sunny."},
    ]
    example = read(tmp_path, {"messages": turns, "tools": [WEATHER]})
    assert [message.role for message in example.messages] == ["user", "assistant", "tool", "assistant"]
    assert example.messages[1].tool_calls == ({"id": "c1", **CALL},)
    assert example.messages[2].name == "weather"
    assert example.tools == (WEATHER,)
    assert read(tmp_path, {"messages": turns, "tools": json.dumps([WEATHER])}).tools == (WEATHER,)


def test_sharegpt_with_function_calls_is_read_as_the_same(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "Rome?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Rome"}}'},
        {"from": "observation", "value": "sunny"},
        {"from": "gpt", "value": "It is sunny."},
    ]
    messages = read(tmp_path, {"conversations": turns}).messages
    assert [message.role for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert messages[1].tool_calls == (CALL,)


def test_what_columnar_files_fill_in_is_no_argument(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "?", "tool_calls": None},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Rome", "day": None}}}],
        },
    ]
    assert read(tmp_path, {"messages": turns}).messages[1].tool_calls == (CALL,)


WRONG: list[tuple[object, str]] = [
    ([{"function": {"arguments": {}}}], "names no function"),
    ([{"function": {"name": "f", "arguments": "[1]"}}], "no JSON object"),
    ([{"function": {"name": "f", "arguments": "{"}}], "no JSON object"),
    ("weather", "not a list"),
    ([3], "names no function"),
]


@pytest.mark.parametrize(("calls", "reason"), WRONG)
def test_a_broken_call_is_refused_with_its_row(calls: object, reason: str, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", "tool_calls": calls}]
    assert reason in refusal(tmp_path, {"messages": turns})


def test_tools_that_are_no_list_of_objects_are_refused(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    assert "'tools'" in refusal(tmp_path, {"messages": turns, "tools": ["weather"]})
    assert "'tools'" in refusal(tmp_path, {"messages": turns, "tools": "weather"})


def test_a_broken_function_call_of_sharegpt_is_refused(tmp_path: Path) -> None:
    assert "names no function" in refusal(tmp_path, {"conversations": [{"from": "function_call", "value": "hello"}]})


def test_columns_of_other_names_are_taken_for_those_that_are_understood(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", {"question": "Who?", "answer": "I.", "text": "not this"})
    columns: Any = {"prompt": "question", "completion": "answer"}
    example = next(examples(path, columns))
    assert (example.format, example.prompt, example.completion) == ("prompt_completion", "Who?", "I.")
    facts = inspect(path, columns)
    assert (facts.format, facts.characters) == ("prompt_completion", 6)
    assert inspect(path).format == "text"


def test_columns_are_found_in_columnar_files_too(tmp_path: Path) -> None:
    table = pyarrow.table({"question": ["Who?"], "answer": ["I."], "prompt": ["not this"]})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    example = next(examples(str(tmp_path / "rows.parquet"), {"prompt": "question", "completion": "answer"}))
    assert (example.prompt, example.completion) == ("Who?", "I.")


def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", {"question": "Who?", "answer": "I."})
    with pytest.raises(InvalidConfig, match=r"row 1 has no column 'reply'.*question, answer"):
        list(examples(path, {"prompt": "question", "completion": "reply"}))


def test_a_turn_of_weight_0_is_not_learnt(tmp_path: Path) -> None:
    ask = {"role": "user", "content": "Rome?"}
    turns = [
        ask,
        {"role": "assistant", "content": "Paris.", "weight": 0},
        ask,
        {"role": "assistant", "content": "Rome."},
    ]
    assert [turn.is_learnt for turn in read(tmp_path, {"messages": turns}).messages] == [True, False, True, True]
    assert "weight 0 at every" in refusal(tmp_path, {"messages": turns[:2]})
    assert "neither 0 nor 1" in refusal(tmp_path, {"messages": [*turns[:3], turns[3] | {"weight": 0.5}]})
