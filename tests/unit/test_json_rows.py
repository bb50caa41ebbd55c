"""JSON documents, one row at a time: the same rows, the same words about mistakes, and little of it in memory."""

import io
import json
import random
import tracemalloc
from typing import Any

import pytest

from peft_studio import json_rows as reader
from peft_studio.json_rows import BadJson, TooLong, json_rows


class Trickle(io.BytesIO):
    """A file that gives a few bytes at a time, whatever it is asked for."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(3, size) if size and size > 0 else 3)


VALUES: list[Any] = [{"a": [1, -2.5e3, True, None, 'x"\\\n\u00e9🌍']}, {}, [], 12345, "text", {"data": {"data": []}}, 0]


@pytest.mark.parametrize("kind", [io.BytesIO, Trickle])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ascii", [True, False])
def test_rows_are_what_json_makes_of_them_however_they_are_cut(
    kind: type[io.BytesIO], indent: int, ascii: bool
) -> None:
    text = json.dumps(VALUES, indent=indent, ensure_ascii=ascii)
    assert list(json_rows(kind(text.encode()))) == VALUES
    nested = json.dumps({"version": 1, "notes": VALUES, "data": VALUES, "more": "x"}, indent=indent, ensure_ascii=ascii)
    assert list(json_rows(kind(nested.encode()))) == VALUES


@pytest.mark.parametrize("kind", [io.BytesIO, Trickle])
def test_mistakes_are_found_where_json_finds_them(kind: type[io.BytesIO]) -> None:
    whole = json.dumps([{"prompt": "Hello 🌍", "n": [1, 2.5, None]}, {"b": "c"}], indent=1, ensure_ascii=False)
    chance = random.Random(1)
    for _ in range(300):
        place = chance.randrange(len(whole))
        broken = whole[:place] + chance.choice(['"', "}", "]", ",", "x", ""]) + whole[place + 1 :]
        try:
            expected = json.loads(broken)
        except json.JSONDecodeError as error:
            with pytest.raises(BadJson) as caught:
                list(json_rows(kind(broken.encode())))
            # Which of two complaints about the same spot it is depends on who reads the brackets.
            assert f"line {error.lineno}," in str(caught.value), broken
        else:
            try:
                assert list(json_rows(kind(broken.encode()))) == expected
            except BadJson:
                assert not isinstance(expected, list)


def test_a_document_far_larger_than_its_rows_takes_little_memory() -> None:
    document = io.BytesIO(b"[" + b",".join([b'{"text": "' + b"x" * 1000 + b'"}'] * 30_000) + b"]")
    tracemalloc.start()
    assert sum(1 for _ in json_rows(document)) == 30_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20


def test_a_row_that_is_longer_than_any_may_be_is_refused() -> None:
    document = b'[{"a": 1}, {"text": "' + b"x" * (reader.MAX_VALUE + reader.CHUNK) + b'"}]'
    rows = json_rows(io.BytesIO(document))
    assert next(rows) == {"a": 1}
    with pytest.raises(TooLong):
        next(rows)


@pytest.mark.parametrize(("text", "place"), [("[1, 22", "line 1, column 7"), ("[1,\n 22\n x]", "line 3, column 2")])
def test_the_place_of_a_mistake_is_right_at_the_end_too(text: str, place: str) -> None:
    for kind in (io.BytesIO, Trickle):
        with pytest.raises(BadJson, match=place):
            list(json_rows(kind(text.encode())))
