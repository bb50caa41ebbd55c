"""What becomes of a data set before training: long rows, single rows, tools, and tokens of earlier jobs."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peft_studio.config import LongRows
from peft_studio.conversations import Message
from peft_studio.datasets import Example
from peft_studio.events import Log, Metrics
from peft_studio.plan import RowFormat
from peft_studio.run_dir import RunDir
from peft_studio.trainer.data import Encoded, Group, Row, encode
from peft_studio.trainer.model import Base, read_base
from peft_studio.trainer.outcome import DONE, FAILED
from peft_studio.trainer.prepare import read_examples, read_held_out
from peft_studio.trainer.program import run as train
from peft_studio.trainer.render import Renderer
from peft_studio.trainer.stop import StopSignal
from peft_studio.trainer.token_cache import TokenCache, cache_key
from tests.tiny import conversations, make_run, tiny_model, tiny_tokenizer, write_rows

LONG = {"messages": [{"role": "user", "content": "who"}, {"role": "assistant", "content": "the cat " * 40}]}
EARLIER = "The rows were tokenized by an earlier job."


def lines(run: RunDir) -> list[str]:
    return [event.message for _, event in run.events() if isinstance(event, Log)]


def losses(run: RunDir) -> list[float]:
    return [
        event.metrics["loss"] for _, event in run.events() if isinstance(event, Metrics) and "loss" in event.metrics
    ]


def base_of(model: Path) -> Base:
    return read_base(make_run(model.parent / "unused", model, model).read_config(), None)


@pytest.mark.parametrize(
    ("long_rows", "counts", "said"),
    [
        ("truncate", (5, 1, 0, 0), "1 rows are longer than 40 tokens and were cut."),
        ("drop", (4, 0, 1, 0), "1 rows were left out: they are longer than 40 tokens."),
        ("split", (8, 0, 0, 1), "1 rows are longer than 40 tokens and were split."),
    ],
)
def test_rows_that_are_too_long_are_cut_left_out_or_split(
    long_rows: str, counts: tuple[int, ...], said: str, tmp_path: Path, model: Path
) -> None:
    dataset = write_rows(tmp_path / "rows.jsonl", [LONG, *conversations(4)])
    run = make_run(tmp_path / "run", model, dataset, max_length=40, num_epochs=1, long_rows=long_rows)
    assert train(run, StopSignal()) == DONE
    summary = run.read_summary()
    assert summary is not None
    assert (summary.train_rows, summary.truncated_rows, summary.dropped_rows, summary.split_rows) == counts
    assert said in lines(run)


def test_of_a_row_that_is_split_every_token_carries_loss_once() -> None:
    tokenizer = tiny_tokenizer()
    base = Base(source="", revision=None, config=None, tokenizer=tokenizer)
    turns = (Message("user", "who"), Message("assistant", "the cat " * 40))
    example = Example(number=1, format=RowFormat.MESSAGES, messages=turns)
    renderer = Renderer(tokenizer, RowFormat.MESSAGES)
    [whole] = encode([example], base, renderer, 1000).rows
    parts = encode([example], base, renderer, 16, LongRows.SPLIT).rows
    assert max(len(part.ids) for part in parts) == 16
    assert sum(part.supervised for part in parts) == whole.supervised
    assert np.concatenate([parts[0].ids, *(part.ids[1:] for part in parts[1:])]).tolist() == whole.ids.tolist()


def test_where_all_rows_are_too_long_and_left_out_that_is_refused(tmp_path: Path, model: Path) -> None:
    run = make_run(tmp_path / "run", model, write_rows(tmp_path / "r.jsonl", [LONG]), max_length=40, long_rows="drop")
    assert train(run, StopSignal()) == FAILED
    failure = run.read_failure()
    assert failure is not None
    assert failure.error == "No row fits into 40 tokens, so there is nothing to learn."


def test_a_data_set_of_one_row_is_trained_on_and_none_is_held_out(tmp_path: Path, model: Path) -> None:
    dataset = write_rows(tmp_path / "rows.jsonl", conversations(1))
    run = make_run(
        tmp_path / "run", model, dataset, validation_split=0.5, early_stopping_patience=1, load_best_at_end=True
    )
    assert train(run, StopSignal()) == DONE
    assert "No row could be held out, so nothing is measured while training." in lines(run)
    assert len(losses(run)) == 2
    assert run.read_summary().eval_loss is None  # pyright: ignore[reportOptionalMemberAccess]


TOOLS = (
    "{% if tools %}<|system|>\n{% for tool in tools %}{{ tool | tojson }}{% endfor %}<|end|>\n{% endif %}"
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}CALL {{ call.function.name }} {{ call.function.arguments | tojson }}"
    "{% endfor %}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def test_calls_carry_loss_and_what_tools_answer_does_not() -> None:
    tokenizer = tiny_tokenizer(TOOLS)
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
    turns = (
        Message("user", "Rome"),
        Message("assistant", "", (call,)),
        Message("tool", "sunny"),
        Message("assistant", "It is"),
    )
    tool = {"type": "function", "function": {"name": "weather"}}
    example = Example(number=1, format=RowFormat.MESSAGES, messages=turns, tools=(tool,))
    row = Renderer(tokenizer, RowFormat.MESSAGES).row(example)
    assert [row.text[slice(*span)] for span in row.answers] == ['CALL weather {"city": "Rome"}<|end|>', "It is<|end|>"]
    assert row.text.startswith("<|system|>\n{")


def test_a_template_that_leaves_calls_out_is_refused(tmp_path: Path, model: Path) -> None:
    call = {"function": {"name": "weather", "arguments": {}}}
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    run = make_run(tmp_path / "run", model, write_rows(tmp_path / "rows.jsonl", [{"messages": turns}]))
    assert train(run, StopSignal()) == FAILED
    assert "leaves out what the assistant says" in run.read_failure().error  # pyright: ignore[reportOptionalMemberAccess]


def test_columns_of_other_names_are_trained_on(tmp_path: Path, plain_model: Path) -> None:
    dataset = write_rows(tmp_path / "rows.jsonl", [{"q": "who", "a": "the cat"}] * 4)
    run = make_run(tmp_path / "run", plain_model, dataset, columns={"prompt": "q", "completion": "a"}, num_epochs=1)
    assert train(run, StopSignal()) == DONE, run.read_failure()


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEFT_STUDIO_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data" / "tokens"


def test_a_second_job_on_the_same_rows_starts_without_tokenizing(
    tmp_path: Path, model: Path, rows: Path, studio: Path
) -> None:
    first, second = (make_run(tmp_path / name, model, rows, validation_split=0.2) for name in ("a", "b"))
    assert (train(first, StopSignal()), train(second, StopSignal())) == (DONE, DONE)
    assert EARLIER not in lines(first)
    assert EARLIER in lines(second)
    assert losses(first) == losses(second)
    assert len(list(studio.iterdir())) == 1


def test_warnings_about_rows_are_said_to_the_second_job_too(tmp_path: Path, model: Path, studio: Path) -> None:
    dataset = write_rows(tmp_path / "rows.jsonl", [LONG, *conversations(3)])
    first, second = (make_run(tmp_path / name, model, dataset, max_length=40, max_steps=1) for name in ("a", "b"))
    assert (train(first, StopSignal()), train(second, StopSignal())) == (DONE, DONE)
    assert "1 rows are longer than 40 tokens and were cut." in lines(second)


@pytest.mark.parametrize("damage", ["flipped", "shortened", "emptied"])
def test_damaged_tokens_are_made_again(damage: str, tmp_path: Path, model: Path, rows: Path, studio: Path) -> None:
    first, second = (make_run(tmp_path / name, model, rows, max_steps=2) for name in ("a", "b"))
    assert train(first, StopSignal()) == DONE
    [path] = studio.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-3] ^= 1
    path.write_bytes(content if damage == "flipped" else content[: len(content) // 2 if damage == "shortened" else 0])
    assert train(second, StopSignal()) == DONE
    assert EARLIER not in lines(second)
    assert losses(first) == losses(second)


def test_tokens_are_those_of_a_tokenizer_a_length_and_a_division(tmp_path: Path, model: Path) -> None:
    base = base_of(model)
    config = make_run(tmp_path / "run", model, model).read_config()
    other: dict[str, Any] = {"seed": 5, "validation_split": 0.3, "long_rows": LongRows.DROP, "columns": {"text": "t"}}
    keys = [cache_key("rows", config.model_copy(update={name: value}), base, 64) for name, value in other.items()]
    keys += [cache_key("rows", config, base, 65), cache_key("other", config, base, 64)]
    keys.append(cache_key("rows", config, base_of(tiny_model(tmp_path / "m", TOOLS)), 64))
    assert len({cache_key("rows", config, base, 64), *keys}) == len(keys) + 1
    assert cache_key("rows", config.model_copy(update={"rank": 3}), base, 64) == cache_key("rows", config, base, 64)


def parts_of(length: int) -> tuple[Encoded, Encoded]:
    text = Row(np.arange(length), np.ones(length, dtype=np.bool_))
    return Encoded([Group((text,), np.array([1.0]))], dropped=2), Encoded([])


def test_the_tokens_that_were_used_longest_ago_make_way(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path, most_bytes=20_000)
    for age, key in enumerate(("a", "b", "c")):
        cache.save(key, parts_of(1000))
        os.utime(tmp_path / f"{key}.safetensors", (time.time() - 100 + age,) * 2)
    assert cache.load("a") is not None  # and so it is the one that was used last
    cache.save("d", parts_of(1000))
    assert {path.stem for path in tmp_path.iterdir()} == {"a", "c", "d"}


def test_any_number_of_jobs_may_keep_and_load_the_same_tokens_at_once(tmp_path: Path) -> None:
    def use(n: int) -> bool:
        cache = TokenCache(tmp_path)
        cache.save(f"k{n % 2}", parts_of(500))
        loaded = cache.load(f"k{n % 2}")
        return loaded is not None and loaded[0].fingerprint() == parts_of(500)[0].fingerprint()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(40)))
    assert {path.name for path in tmp_path.iterdir()} == {"k0.safetensors", "k1.safetensors"}


def test_a_folder_that_cannot_be_written_costs_only_the_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = TokenCache(tmp_path / "file" / "tokens")
    cache.save("a", parts_of(3))
    assert cache.load("a") is None


@pytest.mark.parametrize("validation_split", [0, 0.3])
def test_the_held_out_rows_are_the_same_with_and_without_all_others(
    validation_split: float, tmp_path: Path, model: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", conversations(20))
    config = make_run(tmp_path / "run", model, rows, validation_split=validation_split).read_config()
    train, held_out = read_examples(config, None)
    assert read_held_out(config, None) == (train[0], held_out)
