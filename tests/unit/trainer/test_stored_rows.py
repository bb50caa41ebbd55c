"""Rows on disk: read back as they were written, in the order of their part, and never all in memory."""

import tempfile
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from peft_studio.config import LongRows
from peft_studio.datasets import examples, split_rows
from peft_studio.row_formats import RowFormat
from peft_studio.trainer.data import Encoded, Row, encode, fitted
from peft_studio.trainer.render import Renderer
from peft_studio.trainer.stored_rows import StoredRows, lengths_of, read_rows, write_rows
from tests.tiny import tiny_model
from tests.tiny import write_rows as write_file
from tests.unit.trainer.test_preparation import base_of

SIZES = (3, 0, 5, 2, 7)


def row_of(number: int, length: int) -> Row:
    ids = np.arange(length, dtype=np.int64) + 10 * number
    return Row(ids, ids % 3 == 0)


def some_rows() -> Iterator[Encoded[Row]]:
    """Rows of a data set: the second comes to nothing, the last to two."""
    for number, size in enumerate(SIZES):
        rows = [row_of(number, size)] if size else []
        if number == 4:
            rows.append(row_of(9, 1))
        yield Encoded(rows, dropped=not rows, split=len(rows) > 1)


def written(path: Path) -> tuple[Encoded[Row], Encoded[Row]]:
    with path.open("w+b") as file:
        return write_rows(file, some_rows(), lambda count: ([4, 1, 0], [3, 2][: count - 3]))


def plain(rows: Sequence[Row]) -> list[tuple[list[int], list[bool]]]:
    return [(row.ids.tolist(), row.learn.tolist()) for row in rows]


def test_rows_come_back_as_they_were_in_the_order_of_their_part(tmp_path: Path) -> None:
    for train, held_out in (written(tmp_path / "rows"), read_rows(tmp_path / "rows")):
        assert plain(list(train.rows)) == plain([row_of(4, 7), row_of(9, 1), row_of(0, 3)])
        assert plain(held_out.rows[:2]) == plain([row_of(3, 2), row_of(2, 5)])
        assert (train.dropped, train.split, held_out.dropped, held_out.split) == (1, 1, 0, 0)
        assert lengths_of(train.rows) == [7, 1, 3]
        assert isinstance(train.rows, StoredRows)
        assert plain(train.rows.outline()) == plain([row_of(4, 7), row_of(4, 7), row_of(0, 3)])


def test_equal_rows_have_equal_fingerprints_and_other_ones_have_others(tmp_path: Path) -> None:
    train, held_out = written(tmp_path / "rows")
    again, _ = written(tmp_path / "again")
    assert train.fingerprint() == again.fingerprint() == read_rows(tmp_path / "rows")[0].fingerprint()
    assert train.fingerprint() != held_out.fingerprint()
    with (tmp_path / "other").open("w+b") as file:
        other, _ = write_rows(file, some_rows(), lambda _: ([0, 1, 4], [2]))
    assert other.fingerprint() != train.fingerprint()


@pytest.mark.parametrize("place", [-1, 4096, 4099, -40])
def test_a_changed_byte_is_noticed(place: int, tmp_path: Path) -> None:
    written(tmp_path / "rows")
    content = bytearray((tmp_path / "rows").read_bytes())
    content[place] ^= 1
    (tmp_path / "rows").write_bytes(content)
    with pytest.raises(ValueError, match="others than those that were written"):
        read_rows(tmp_path / "rows")


def test_rows_stay_readable_when_their_file_is_gone(tmp_path: Path) -> None:
    train, _ = written(tmp_path / "rows")
    (tmp_path / "rows").unlink()
    assert plain([train.rows[2]]) == plain([row_of(0, 3)])


def test_no_rows_at_all_are_rows_too(tmp_path: Path) -> None:
    with (tmp_path / "rows").open("w+b") as file:
        train, held_out = write_rows(file, iter(()), lambda count: (list(range(count)), []))
    assert (len(train.rows), len(held_out.rows)) == (0, 0)
    assert [len(part.rows) for part in read_rows(tmp_path / "rows")] == [0, 0]


@pytest.mark.parametrize("long_rows", list(LongRows))
def test_the_rows_on_disk_are_those_of_the_rows_in_memory(long_rows: LongRows, tmp_path: Path) -> None:
    base = base_of(tiny_model(tmp_path / "model"))
    rows = [{"prompt": f"Row {n}", "completion": "so and so " * (1 + n % 7)} for n in range(60)]
    source = str(write_file(tmp_path / "rows.jsonl", rows))
    renderer = Renderer(base.tokenizer, RowFormat.PROMPT_COMPLETION)
    everything = list(examples(source))
    division = split_rows(len(everything), 0.2, 3)
    with tempfile.TemporaryFile() as file:
        stored = write_rows(
            file, fitted(examples(source), base, renderer, 24, long_rows), lambda count: split_rows(count, 0.2, 3)
        )
    for numbers, part in zip(division, stored, strict=True):
        known = encode([everything[number] for number in numbers], base, renderer, 24, long_rows)
        assert plain(list(part.rows)) == plain(list(known.rows))
        assert (part.truncated, part.dropped, part.split) == (known.truncated, known.dropped, known.split)


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    def most_bytes(count: int) -> int:
        rows = (Encoded([Row(np.arange(400), np.ones(400, dtype=np.bool_))]) for _ in range(count))
        with tempfile.TemporaryFile(dir=tmp_path) as file:
            tracemalloc.start()
            train, _ = write_rows(file, rows, lambda count: (range(count), []))
            assert sum(len(row.ids) for row in train.rows) == 400 * count
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        return most

    # A row of 400 tokens takes 3.6 kB in memory; what is left of it here is a few numbers.
    assert most_bytes(2000) - most_bytes(200) < 1800 * 200
