"""
Safetensors files, read from their headers alone, and only where those tell the truth.

The format: eight bytes of little-endian length, that much JSON, then the tensors' bytes without gaps or overlaps
(https://github.com/huggingface/safetensors). Whatever is not so raises ``UnsafeFile`` with the reason.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

Entry = dict[str, Any]
MAX_HEADER = 100 << 20  # the format's own limit
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F4": 4,
}
_MOST_DIMENSIONS = 8
_READ_AT_ONCE = 4 << 20  # a multiple of every size
# A number is infinite or none at all where all bits of its exponent are set: which bits these are in its
# highest byte, and in the one below.
_EXPONENTS = {"F64": (0x7F, 0xF0), "F32": (0x7F, 0x80), "BF16": (0x7F, 0x80), "F16": (0x7C, 0x00)}
FLOATS = frozenset(_EXPONENTS)


class UnsafeFile(ValueError):
    """It is not a safetensors file, or not a whole one."""


class Tensor(NamedTuple):
    """A tensor as its file's header describes it; ``start`` is the first of its bytes in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


def read_header(path: Path, most: int = MAX_HEADER) -> dict[str, Tensor]:
    """Return a file's tensors by name; ``most`` is the largest header that is read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        begin = file.read(8)
        length = int.from_bytes(begin, "little")
        if len(begin) < 8 or length > size - 8:
            raise UnsafeFile(_what_it_is(begin, size))
        if length > most:
            raise UnsafeFile(f"its header has {length} bytes, more than {most}")
        content = file.read(length)
    try:
        header: object = json.loads(content, object_pairs_hook=_named_once)
    except UnsafeFile:
        raise
    except (ValueError, RecursionError):
        raise UnsafeFile("its header is not JSON, so it is not a safetensors file") from None
    if not isinstance(header, dict):
        raise UnsafeFile("its header is not a JSON object, so it is not a safetensors file")
    entries = cast(Entry, header)
    notes: object = entries.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(value, str) for value in cast(Entry, notes).values()):
        raise UnsafeFile("its header's __metadata__ is not a JSON object of strings")
    tensors = {name: _tensor(name, entry, 8 + length) for name, entry in entries.items()}
    _check_that_they_fill(tensors, 8 + length, size)
    return tensors


def not_finite(path: Path, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield the names of the tensors that hold numbers which are infinite or none, in the order of the file."""
    with path.open("rb") as file:
        for name, tensor in sorted(tensors.items(), key=lambda item: item[1].start):
            if tensor.dtype not in FLOATS:
                continue
            file.seek(tensor.start)
            for at in range(0, tensor.size, _READ_AT_ONCE):
                if _has_wild_numbers(file.read(min(_READ_AT_ONCE, tensor.size - at)), tensor.dtype):
                    yield name
                    break


def _has_wild_numbers(data: bytes, dtype: str) -> bool:
    # A byte for each number's upper and lower part of the exponent, 1 where it is all ones, and both compared as two
    # long integers: as fast as a library for arrays, without one.
    width, (upper, lower) = _BITS[dtype] // 8, _EXPONENTS[dtype]
    full = [bytes(value & bits == bits for value in range(256)) for bits in (upper, lower)]
    parts = [data[width - 1 - n :: width].translate(table) for n, table in enumerate(full)]
    return bool(int.from_bytes(parts[0], "little") & int.from_bytes(parts[1], "little"))


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise UnsafeFile("its header names something twice")
    return found


def _tensor(name: str, entry: object, data: int) -> Tensor:
    """Read one entry of a header; what it says must fit together."""
    shown = repr(name[:100])
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end], **rest} if not rest:
            pass
        case _:
            raise UnsafeFile(f"its header's entry for {shown} is not dtype, shape and data_offsets")
    if len(shape) > _MOST_DIMENSIONS or not all(_is_count(side) for side in shape):
        raise UnsafeFile(f"its header gives {shown} an impossible shape")
    if not (_is_count(begin) and _is_count(end) and begin <= end):
        raise UnsafeFile(f"its header gives {shown} impossible offsets")
    if dtype not in _BITS:
        raise UnsafeFile(f"its header gives {shown} a type {dtype[:20]!r}, which the format does not have")
    if _BITS[dtype] * math.prod(shape) != 8 * (end - begin):
        raise UnsafeFile(f"its header gives {shown} {end - begin} bytes, which is not what {dtype} {shape} takes")
    return Tensor(dtype, tuple(shape), data + begin, end - begin)


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0  # true is an int to Python, but not to the format


def _check_that_they_fill(tensors: Mapping[str, Tensor], data: int, size: int) -> None:
    """See that the tensors lie one behind the other, from the header to the end of the file."""
    at = data
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].size)):
        if tensor.start != at:
            problem = "overlaps another tensor" if tensor.start < at else "leaves a gap before it"
            raise UnsafeFile(f"its header's {name[:100]!r} {problem}")
        at += tensor.size
    if at != size:
        raise UnsafeFile(f"it has {size} bytes where its header asks for {at}")


def _what_it_is(begin: bytes, size: int) -> str:
    """Name the kind of a file that is no safetensors file, as far as its first bytes tell."""
    if begin.startswith(b"PK"):
        return "it is a zip archive (PyTorch's .bin and .pt files are), not a safetensors file"
    if begin[:1] == b"\x80" and begin[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "it is a pickle, which can run code when it is loaded, not a safetensors file"
    if begin.startswith((b"\x93NUMPY", b"\x89HDF")):
        return "it holds arrays in another format, it is not a safetensors file"
    if len(begin) < 8:
        return f"it has {size} bytes, which is too few for a safetensors file"
    return f"it has {size} bytes, fewer than its first eight announce: it is cut off, or not a safetensors file"
