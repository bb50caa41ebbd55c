"""Data sets: what is understood, and what each kind of bad input is told."""

import gzip
import hashlib
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from peft_studio import datasets
from peft_studio.dataset_sources import is_hub_id
from peft_studio.datasets import Message, detect_format, examples, inspect, iter_rows, split_rows
from peft_studio.errors import InvalidConfig
from peft_studio.plan import RowFormat

PAIR = {"prompt": "Hello", "completion": "World"}
CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
SECRET = "hunter2-is-the-password"


def jsonl(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def refusal(path: object) -> InvalidConfig:
    with pytest.raises(InvalidConfig) as caught:
        list(examples(str(path)))
    error = caught.value
    assert error.details["field"] == "dataset_path"
    assert "dataset_path" in error.message
    assert error.details["issue"] in error.message
    assert SECRET not in error.message
    assert pickle.loads(pickle.dumps(error)).details == error.details
    return error


def in_every_format(folder: Path, rows: list[dict[str, Any]]) -> list[str]:
    names = list(rows[0])
    lines = [",".join(names), *(",".join('"' + row[name].replace('"', '""') + '"' for name in names) for row in rows)]
    (folder / "a.json").write_text(json.dumps(rows))
    (folder / "nested.json").write_text(json.dumps({"version": 1, "data": rows}))
    (folder / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (folder / "a.csv").write_text("\r\n".join(lines), newline="")
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    return [str(folder / name) for name in ("a.json", "nested.json", "a.jsonl", "a.csv", "a.parquet")]


def test_the_same_rows_read_the_same_in_every_file_format(tmp_path: Path) -> None:
    rows = [{"prompt": 'Say "hi",\nplease', "completion": "hi ü 🌍", "id": str(n)} for n in range(700)]
    for path in in_every_format(tmp_path, rows):
        found = list(examples(path))
        assert [example.number for example in found] == list(range(1, 701)), path
        assert {(example.prompt, example.completion) for example in found} == {(rows[0]["prompt"], "hi ü 🌍")}
        assert found[0].format is RowFormat.PROMPT_COMPLETION


@pytest.mark.parametrize(
    ("row", "layout"),
    [
        (PAIR, RowFormat.PROMPT_COMPLETION),
        (CHAT, RowFormat.MESSAGES),
        ({"conversations": []}, RowFormat.MESSAGES),
        ({"instruction": "Add", "input": "1 1", "output": "2"}, RowFormat.INSTRUCTION),
        ({"instruction": "Add", "output": "2"}, RowFormat.INSTRUCTION),
        ({"text": "Once upon"}, RowFormat.TEXT),
        (CHAT | {"prompt": "x", "text": "y"}, RowFormat.MESSAGES),
        ({"messages": None, "text": "y"}, RowFormat.TEXT),
    ],
)
def test_the_layout_follows_from_the_columns(row: dict[str, Any], layout: RowFormat) -> None:
    assert detect_format(row) is layout


def test_an_instruction_row_keeps_its_three_parts(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "a.jsonl",
        {"instruction": "Add", "input": "1 1", "output": "2", "source": 3},
        {"instruction": "Greet", "input": None, "output": "Hello"},
        {"instruction": "Greet", "output": "Hello"},
    )
    first, second, third = examples(path)
    assert (first.prompt, first.input, first.completion) == ("Add", "1 1", "2")
    assert second.input == third.input == ""


def test_conversations_become_messages(tmp_path: Path) -> None:
    turns = [
        {"from": "system", "value": ""},
        {"from": "human", "value": "Hi"},
        {"from": "gpt", "value": "Hello"},
    ]
    (example,) = examples(jsonl(tmp_path / "a.jsonl", {"conversations": turns}))
    assert example.messages == (Message("system", ""), Message("user", "Hi"), Message("assistant", "Hello"))


def test_messages_come_out_of_parquet_as_they_went_in(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([CHAT, CHAT]), tmp_path / "a.parquet")
    assert [len(example.messages) for example in examples(str(tmp_path / "a.parquet"))] == [2, 2]


def test_turns_of_two_kinds_in_one_parquet_file_are_told_apart(tmp_path: Path) -> None:
    said = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    pq.write_table(pa.Table.from_pylist([CHAT, {"messages": said}]), tmp_path / "a.parquet")
    first, second = examples(str(tmp_path / "a.parquet"))
    assert first.messages == second.messages


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv"])
def test_a_byte_order_mark_is_accepted(tmp_path: Path, suffix: str) -> None:
    content = {"json": json.dumps([PAIR]), "jsonl": json.dumps(PAIR), "csv": "prompt,completion\nHello,World\n"}
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"\xef\xbb\xbf" + content[suffix].encode())
    assert next(examples(str(path))).prompt == "Hello"


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"\n{json.dumps(PAIR)}\n\n  \n{json.dumps(PAIR)}\n\n")
    assert [number for number, _ in iter_rows(str(path))] == [1, 2]


def test_reading_stops_where_the_reader_stops(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(PAIR) + "\nthis would be an error\n")
    assert next(iter_rows(str(path))) == (1, PAIR)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "x"}, "no 'completion'"),
        ({"prompt": "x", "completion": None}, "no 'completion'"),
        ({"completion": "x"}, "no 'prompt'"),
        ({"prompt": "x", "completion": ""}, "empty 'completion'"),
        ({"prompt": "x", "completion": " \n"}, "empty 'completion'"),
        ({"prompt": "", "completion": "x"}, "empty 'prompt'"),
        ({"prompt": "x", "completion": 5}, "'completion' that is int"),
        ({"prompt": ["x"], "completion": "y"}, "'prompt' that is list"),
        ({"prompt": "x", "completion": "\ud800"}, "surrogate"),
        ({"text": "y"}, "is laid out as text, the rows before it as prompt_completion"),
        (CHAT, "is laid out as messages"),
        ({}, "none of the columns"),
        ([], "is a list"),
        ("x", "is not an object of columns but text"),
        (None, "is not an object of columns but null"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: object, said: str) -> None:
    error = refusal(jsonl(tmp_path / "a.jsonl", *[PAIR] * 36, row, PAIR))
    assert error.details["row"] == 37
    assert "row 37" in error.message
    assert said in error.message


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"instruction": "x"}, "no 'output'"),
        ({"instruction": "x", "output": ""}, "empty 'output'"),
        ({"instruction": "x", "input": 5, "output": "y"}, "'input' that is int"),
        ({"text": ""}, "empty 'text'"),
        ({"text": 1}, "'text' that is int"),
        ({"question": "x", "answer": "y"}, "question, answer"),
        ({SECRET: "x"}, "none of the columns"),
        ({"messages": "x"}, "'messages' that is not a list"),
        ({"messages": []}, "empty list of messages"),
        ({"messages": ["x"]}, "turn 1 that is not an object"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "turn 1 with an unknown role"),
        ({"messages": [{"role": 1, "content": "x"}]}, "turn 1 with an unknown role"),
        ({"messages": [{"content": "x"}]}, "turn 1 with an unknown role"),
        ({"messages": [{"role": "user", "content": "x"}]}, "does not end with an assistant's turn"),
        ({"messages": [*CHAT["messages"], {"role": "user", "content": "x"}]}, "does not end with an assistant's turn"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant"}]}, "turn 2 without content"),
        ({"messages": [{"role": "assistant", "content": ""}]}, "empty turn 1 (assistant)"),
        ({"messages": [{"role": "user", "content": ""}, CHAT["messages"][1]]}, "empty turn 1 (user)"),
        ({"messages": [{"role": "assistant", "content": ["x"]}]}, "turn 1 (assistant) that is list"),
        ({"conversations": [{"from": "human", "value": "x"}]}, "does not end with an assistant's turn"),
    ],
)
def test_a_bad_first_row_is_named(tmp_path: Path, row: object, said: str) -> None:
    error = refusal(jsonl(tmp_path / "a.jsonl", row))
    assert error.details["row"] == 1
    assert said in error.message


ZIP = b"PK\x03\x04" + b"\0" * 50
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 50


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.parquet", b"", "is empty"),
        ("a.jsonl", b"\n \n", "no rows"),
        ("a.json", b"[]", "no rows"),
        ("a.json", b'{"data": []}', "no rows"),
        ("a.json", b'{"rows": []}', "whose 'data' is such a list"),
        ("a.json", b"7", "a list of objects"),
        ("a.json", b'[{"prompt": "x"', "not JSON"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.json", b"[" + b"1" * 5000 + b"]", "a number is too long"),
        ("a.json", json.dumps(PAIR).encode() * 2, "not JSON"),
        ("a.json", b"\n".join([json.dumps(PAIR).encode()] * 2), "name it .jsonl"),
        ("a.json", b'["\xff"]', "byte 3 is not UTF-8"),
        ("a.csv", b"prompt,completion\n", "no rows"),
        ("a.csv", b"prompt,prompt\na,b\n", "twice"),
        ("a.jsonl", PNG, "a PNG image"),
        ("a.json", ZIP, "a zip archive"),
        ("a.csv", ZIP, "a zip archive"),
        ("a.csv", b"a,b\n\0\1\2", "binary"),
        ("a.jsonl", gzip.compress(b"{}", mtime=0), "gzip"),
        ("a.jsonl", b"PAR1" + b"\0" * 50, "Parquet"),
        ("a.csv", "prompt,completion\na,b\n".encode("utf-16"), "UTF-16"),
        ("a.parquet", json.dumps(PAIR).encode(), "not Parquet"),
        ("a.parquet", b"PAR1" + b"\0" * 50, "not a whole Parquet file"),
        ("a.txt", b"hello", "must end in"),
        ("a", b"hello", "must end in"),
        ("a.jsonl.gz", gzip.compress(b"{}", mtime=0), "must end in"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    error = refusal(tmp_path / name)
    assert said in error.message
    assert "row" not in error.details or error.details["row"] == 1


@pytest.mark.parametrize(
    ("name", "content", "row", "said"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', 2, "not UTF-8 at byte 25 of the file"),
        ("a.csv", b"text\nx\ny\n\xff\n", 3, "not UTF-8 at byte 10 of the file"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "x"\n', 2, "not JSON"),
        ("a.jsonl", b'{"text": "x"}\n' + SECRET.encode(), 2, "not JSON"),
        ("a.jsonl", b'[{"text": "x"}]\n', 1, "named .json"),
        ("a.jsonl", b"{\n", 1, "one object a line"),
        ("a.jsonl", b'{"text": "x"}\n' + b"[" * 100_000, 2, "nested too deeply"),
        ("a.jsonl", b'{"text": "' + b"x" * 5000 + b'"}\nx\0y\n', 2, "zero byte"),
        ("a.json", b'[{"text": "x"}, 5]', 2, "is not an object of columns but a number"),
        ("a.json", b'[{"text": "x"}, true]', 2, "a truth value"),
        ("a.csv", b"prompt,completion\na,b\nc\n", 2, "has 1 cells, the header 2"),
        ("a.csv", b"prompt,completion\na,b\nc,d,e\n", 2, "has 3 cells, the header 2"),
        ("a.csv", b'prompt,completion\na,b\n"c,d\n', 2, "not well-formed CSV"),
        ("a.csv", b"prompt,completion\na,\n", 1, "empty 'completion'"),
        ("a.csv", b"prompt;completion\na;b\n", 1, "none of the columns"),
    ],
)
def test_a_bad_row_of_a_file_is_named(tmp_path: Path, name: str, content: bytes, row: int, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    error = refusal(tmp_path / name)
    assert error.details["row"] == row
    assert f"row {row} " in error.message
    assert said in error.message


def test_a_row_of_parquet_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["x" * 100_000]}), path, compression="gzip", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[40:80] = b"\0" * 40
    path.write_bytes(bytes(content))
    assert refusal(path).details["row"] == 1


def test_parquet_is_read_page_by_page_however_large_its_row_groups_are(tmp_path: Path) -> None:
    texts = [f"{n} " * 2000 for n in range(5000)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", compression="none", use_dictionary=False)
    assert (tmp_path / "a.parquet").stat().st_size > 40_000_000
    arrow = pa.total_allocated_bytes()
    tracemalloc.start()
    rows = iter_rows(str(tmp_path / "a.parquet"))
    assert next(rows)[1]["text"] == texts[0]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak + pa.total_allocated_bytes() - arrow < 20_000_000
    rows.close()  # pyright: ignore[reportAttributeAccessIssue]


def test_empty_parquet_has_no_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    assert "no rows" in refusal(tmp_path / "a.parquet").message


def test_other_columns_of_parquet_are_not_even_read(tmp_path: Path) -> None:
    table = pa.table({"text": ["x"], "when": pa.array([1], pa.timestamp("ns"))})
    pq.write_table(table, tmp_path / "a.parquet")
    assert list(iter_rows(str(tmp_path / "a.parquet"))) == [(1, {"text": "x"})]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/nowhere/a.jsonl", "there is no file"),
        ("missing.jsonl", "there is no file"),
        ("some/file.txt", "there is no file"),
        ("/dev/zero", "not a regular file"),
        (os.curdir, "is a directory"),
        ("a\0b.jsonl", "cannot be opened"),
        ("x" * 4096, "cannot be opened"),
        ("https://example.org/a.jsonl", "only local paths"),
        ("gs://bucket/a.jsonl", "only local paths"),
    ],
)
def test_what_is_no_readable_file_is_named(path: str, said: str) -> None:
    assert said in refusal(path).message


@pytest.mark.parametrize("path", ["squad", "tatsu-lab/alpaca", "org/name-v1.1"])
def test_names_that_could_be_on_a_hub_are_looked_for_there(path: str) -> None:
    assert is_hub_id(path)


@pytest.mark.parametrize("path", ["a.jsonl", "data/a.csv", "./squad", "/squad", "a/b/c", "../x", "a b", ""])
def test_paths_are_not_looked_for_on_a_hub(path: str) -> None:
    assert not is_hub_id(path)


def test_inspection_tells_the_facts(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", CHAT, CHAT)
    content = Path(path).read_bytes()
    facts = inspect(path)
    assert facts.sha256 == hashlib.sha256(content).hexdigest()
    assert facts.bytes == len(content)
    assert (facts.rows, facts.characters, facts.format) == (2, 14, RowFormat.MESSAGES)
    assert facts.path == path


def test_inspection_finds_the_first_bad_row(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="row 2"):
        inspect(jsonl(tmp_path / "a.jsonl", PAIR, {"prompt": "x"}, {}))


def test_inspection_sees_a_change_of_the_same_size_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    seen: set[str] = set()
    for letter in "abcdefgh":
        seen.add(inspect(jsonl(path, {"text": letter})).sha256)
    assert len(seen) == 8


def test_a_file_that_did_not_change_is_not_read_again(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", PAIR)
    os.utime(path, (1, 1))
    first = inspect(path)
    # The same size, time and inode: only memory can know the old content.
    Path(path).write_bytes(Path(path).read_bytes().replace(b"World", b"Worms"))
    os.utime(path, (1, 1))
    assert inspect(path) is first
    os.utime(path, (2, 2))
    assert inspect(path).sha256 != first.sha256


@pytest.mark.parametrize(
    ("count", "share", "held_out"), [(1, 0.5, 0), (2, 0.1, 1), (2, 0.5, 1), (3, 0.0, 0), (10, 0.1, 1), (100, 0.25, 25)]
)
def test_the_split_holds_out_the_share_but_never_everything(count: int, share: float, held_out: int) -> None:
    train, held = split_rows(count, share, seed=7)
    assert len(held) == held_out
    assert sorted(train + held) == list(range(count))


def test_the_split_follows_from_the_seed_alone() -> None:
    assert split_rows(100, 0.1, seed=1) == split_rows(100, 0.1, seed=1)
    assert split_rows(100, 0.1, seed=1)[1] != split_rows(100, 0.1, seed=2)[1]


def test_neither_data_sets_nor_models_need_torch() -> None:
    program = (
        "import sys, peft_studio.datasets, peft_studio.base_models, infra.planning.planner;"
        "print(sorted({'torch', 'transformers', 'peft', 'datasets', 'pyarrow', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_module_names_what_it_offers() -> None:
    assert all(hasattr(datasets, name) for name in datasets.__all__)
