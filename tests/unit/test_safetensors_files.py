"""Safetensors headers: read as the library reads them, and refused at least where it refuses."""

import json
import random
import struct
from pathlib import Path

import pytest
from safetensors import SafetensorError, deserialize

from peft_studio.safetensors_files import UnsafeFile, not_finite, read_header
from tests.adapter_files import header_of, packed, shapes, weights

MUTATIONS = 3000


def library_takes(content: bytes) -> bool:
    try:
        deserialize(content)
    except SafetensorError:
        return False
    return True


def ours_takes(path: Path) -> bool:
    try:
        read_header(path)
    except UnsafeFile:
        return False
    return True


def test_what_we_read_is_what_the_library_reads(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for dtype, width in (("F32", 4), ("BF16", 2), ("F64", 8)):
        content = weights(shapes(rank=3, dora=True), dtype=dtype, width=width)
        path.write_bytes(content)
        found = {name: (tensor.dtype, list(tensor.shape), tensor.size) for name, tensor in read_header(path).items()}
        theirs = {name: (entry["dtype"], entry["shape"], len(entry["data"])) for name, entry in deserialize(content)}
        assert found == theirs


def test_a_file_that_the_library_refuses_is_refused_however_it_is_damaged(tmp_path: Path) -> None:
    chance, path = random.Random(4), tmp_path / "file"
    content = weights(shapes(layers=1))
    end = 8 + struct.unpack("<Q", content[:8])[0]
    taken = 0
    for _ in range(MUTATIONS):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(end)] = chance.choice(b'0123456789{}[]":,-.eF ' + bytes(range(256)))
        if chance.random() < 0.2:
            del damaged[chance.randrange(len(damaged)) :]
        path.write_bytes(damaged)
        if ours_takes(path):
            taken += 1
            assert library_takes(bytes(damaged)), bytes(damaged[:end])
    assert taken > MUTATIONS / 100  # a change within a name does no harm


def test_every_offset_has_to_be_right(tmp_path: Path) -> None:
    header, size = header_of(shapes(layers=1))
    path = tmp_path / "file"
    for name in [name for name in header if name != "__metadata__"]:
        for at in (0, 1):
            for change in (-(2**63), -4, -1, 1, 4, size, 2**31, 2**63, 2**70):
                entry = json.loads(json.dumps(header[name]))
                entry["data_offsets"][at] += change
                path.write_bytes(packed({**header, name: entry}, bytes(size)))
                with pytest.raises(UnsafeFile):
                    read_header(path)


def test_sizes_that_overflow_are_no_sizes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for shape in ([2**62, 4], [2**32, 2**32], [10**30, 0]):
        entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
        path.write_bytes(packed({"a": entry}, b""))
        taken = ours_takes(path)
        assert taken is (0 in shape)


def test_the_largest_header_is_given_by_the_caller(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(weights())
    assert read_header(path, 1 << 20)
    with pytest.raises(UnsafeFile, match="more than 100"):
        read_header(path, 100)


def test_numbers_are_looked_at_behind_the_first_megabytes_too(tmp_path: Path) -> None:
    path, count = tmp_path / "file", 3 << 20
    content = bytearray(weights({"a": [count], "b": [2]}))
    path.write_bytes(content)
    tensors = read_header(path)
    assert list(not_finite(path, tensors)) == []
    for name, number in (("a", count - 1), ("b", 0)):
        struct.pack_into("<f", content, tensors[name].start + 4 * number, float("nan"))
    path.write_bytes(content)
    assert list(not_finite(path, tensors)) == ["a", "b"]
