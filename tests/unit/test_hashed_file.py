"""A file that is written has its hash by then, whatever the pieces it is written in."""

from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest

from peft_studio.hashed_file import HashedOutput


def test_what_is_written_in_pieces_is_hashed_as_a_whole(tmp_path: Path) -> None:
    pieces = [b"", b"begins", bytes(range(256)) * 4096, b"goes on", bytes(1 << 20), b"ends"]
    with (tmp_path / "file").open("wb") as opened:
        file = HashedOutput(opened)
        for piece in pieces:
            assert file.write(memoryview(piece)) == len(piece)
        assert file.tell() == sum(map(len, pieces))
        hashed = file.sha256
        file.close()
    written = (tmp_path / "file").read_bytes()
    assert (hashed, written) == (sha256(written).hexdigest(), b"".join(pieces))


class Full(BytesIO):
    """A disk without room."""

    def write(self, buffer: object, /) -> int:
        raise OSError(28, "No space left on device")


def test_a_disk_that_is_full_is_said_and_the_file_can_be_closed() -> None:
    file = HashedOutput(full := Full())
    with pytest.raises(OSError, match="No space left"):
        file.write(bytes(1 << 20))
    file.close()
    assert full.closed
