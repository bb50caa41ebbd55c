"""Rows on disk: tokenized one after the other into a file, and read from it when they are looked at."""

import hashlib
import json
import os
import weakref
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from peft_studio.trainer.data import Encoded, Row

PARTS = ("train", "held_out")
COUNTS = ("truncated", "dropped", "split")
_HEADER = 4096  # bytes that are kept for the header, which is known last
_READ_AT_ONCE = 1 << 20


class StoredRows(Sequence[Row]):
    """
    Rows in a file; of them only where they end is in memory.

    A token that carries loss is kept as its id, another one as the id with all bits turned over, which is below zero.
    """

    def __init__(self, file: BinaryIO, ends: NDArray[np.int64], order: NDArray[np.int64]):
        self._ends, self._order = ends, order
        self._file = os.dup(file.fileno())  # it may be closed, and its name be gone
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        if isinstance(place, slice):
            return [self._read(int(number)) for number in self._order[place]]
        return self._read(int(self._order[place]))

    def _read(self, number: int) -> Row:
        begin = int(self._ends[number - 1]) if number else 0
        size = 4 * (int(self._ends[number]) - begin)
        content = os.pread(self._file, size, _HEADER + 4 * begin)
        if len(content) < size:
            raise OSError("The file of tokens has become shorter.")
        tokens = np.frombuffer(content, dtype=np.int32).astype(np.int64)
        learn = tokens >= 0
        return Row(np.where(learn, tokens, ~tokens), learn)

    def lengths(self) -> NDArray[np.int64]:
        """Return how many tokens each row has."""
        return np.diff(self._ends, prepend=0)[self._order]

    def outline(self) -> list[Row]:
        """Return the first row, a longest one and the last."""
        return [self[0], self[int(self.lengths().argmax())], self[-1]]


def lengths_of(rows: Sequence[Row]) -> Sequence[int]:
    """Return how many tokens each row has, without reading those on disk."""
    return rows.lengths().tolist() if isinstance(rows, StoredRows) else [len(row.ids) for row in rows]


def write_rows(
    file: BinaryIO, fitted: Iterable[Encoded[Row]], divide: Callable[[int], tuple[Sequence[int], Sequence[int]]]
) -> tuple[Encoded[Row], Encoded[Row]]:
    """
    Write what each row of a data set comes to into an empty file, in the safetensors format, and return its parts.

    ``divide`` says of so many rows of a data set which, by number from 0, are in each part, and in which order.
    """
    ends, firsts = array("q"), array("q", [0])
    counts = {name: array("q") for name in COUNTS}
    digest, tokens = hashlib.sha256(), 0
    file.seek(_HEADER)
    for one in fitted:
        for row in one.rows:
            content = np.where(row.learn, row.ids, ~row.ids).astype(np.int32).tobytes()
            digest.update(content)
            file.write(content)
            tokens += len(row.ids)
            ends.append(tokens)
        firsts.append(len(ends))
        for name in COUNTS:
            counts[name].append(getattr(one, name))
    known = {"tokens.sha256": digest.hexdigest()}
    arrays = {"ends": _numbers(ends)}
    for part, numbers in zip(PARTS, divide(len(firsts) - 1), strict=True):
        chosen = np.array(numbers, dtype=np.int64)
        arrays[part] = _places(_numbers(firsts), chosen)
        known |= {f"{part}.{name}": str(int(_numbers(counts[name])[chosen].sum())) for name in COUNTS}
    _close(file, tokens, arrays, known)
    return _parts(file, arrays, known)


def read_rows(path: Path) -> tuple[Encoded[Row], Encoded[Row]]:
    """Return the parts that a file was written with; raises ``ValueError`` where it has other ones now."""
    digest = hashlib.sha256()
    with safe_open(path, "np") as opened, path.open("rb") as file:
        known: dict[str, str] = opened.metadata() or {}
        arrays: dict[str, NDArray[np.int64]] = {name: opened.get_tensor(name) for name in ("ends", *PARTS)}
        if known.get("arrays.sha256") != _sha256(arrays):
            raise ValueError("The file's rows are others than those that were written.")
        file.seek(_HEADER)
        left = 4 * int(arrays["ends"][-1]) if len(arrays["ends"]) else 0
        while left and (some := file.read(min(left, _READ_AT_ONCE))):
            digest.update(some)
            left -= len(some)
        if known.get("tokens.sha256") != digest.hexdigest():
            raise ValueError("The file's tokens are others than those that were written.")
        return _parts(file, arrays, known)


def _close(file: BinaryIO, tokens: int, arrays: Mapping[str, NDArray[np.int64]], known: dict[str, str]) -> None:
    """Write the arrays behind the tokens, and the header before them; spaces fill what was kept for it."""
    known["arrays.sha256"] = _sha256(arrays)
    header: dict[str, Any] = {"__metadata__": known}
    at = 4 * tokens
    header["tokens"] = {"dtype": "I32", "shape": [tokens], "data_offsets": [0, at]}
    for name, values in arrays.items():
        header[name] = {"dtype": "I64", "shape": [len(values)], "data_offsets": [at, at + values.nbytes]}
        file.write(values.tobytes())
        at += values.nbytes
    file.seek(0)
    file.write((_HEADER - 8).to_bytes(8, "little") + json.dumps(header).encode().ljust(_HEADER - 8))
    file.flush()


def _parts(
    file: BinaryIO, arrays: Mapping[str, NDArray[np.int64]], known: Mapping[str, str]
) -> tuple[Encoded[Row], Encoded[Row]]:
    train, held_out = (
        Encoded(
            StoredRows(file, arrays["ends"], arrays[part]),
            **{name: int(known[f"{part}.{name}"]) for name in COUNTS},
            digest=_sha256({"ends": arrays["ends"], "order": arrays[part]}, known["tokens.sha256"]),
        )
        for part in PARTS
    )
    return train, held_out


def _places(firsts: NDArray[np.int64], chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the stored rows of the data set's ``chosen`` ones, each of which came to none, one or several."""
    counts = firsts[chosen + 1] - firsts[chosen]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(firsts[chosen], counts) + within


def _numbers(values: "array[int]") -> NDArray[np.int64]:
    return np.frombuffer(values, dtype=np.int64) if values else np.empty(0, dtype=np.int64)


def _sha256(arrays: Mapping[str, NDArray[np.int64]], before: str = "") -> str:
    digest = hashlib.sha256(before.encode())
    for name in sorted(arrays):
        digest.update(name.encode() + arrays[name].tobytes())
    return digest.hexdigest()
