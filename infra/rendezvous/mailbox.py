"""A machine's mailbox: files that it sends and the studio takes, in a folder here or in a bucket."""

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from peft_studio.oom_ladder import FILE as LAYOUT
from peft_studio.remote.assignment import ALIVE, END, PIECE_BYTES, RESULTS

_JSON_BYTES = 1 << 20
_PIECE = re.compile(r"(events|log)/[0-9]{15}", re.ASCII)
_FILE = re.compile(r"(checkpoints/step-[0-9]{1,12}|adapter)/[A-Za-z0-9_][\w.-]{0,99}", re.ASCII)
_DOCUMENTS = (ALIVE, END, LAYOUT, *RESULTS)


@dataclass(frozen=True)
class Content:
    """One file; when it is another one, ``mark`` is another one."""

    size: int
    mark: str


class Mailbox(Protocol):
    """
    One machine's files, by their paths in it. Several processes may use it.

    Every method may raise ``ResourceUnavailable`` where the bucket does not answer.
    """

    def contents(self) -> Mapping[str, Content]:
        """Return what is there, as far as it has a place in a mailbox and is not too large for that."""
        ...

    def read(self, path: str, size: int) -> bytes | None:
        """Return at most so many bytes of a file that is not empty; None where it is not there (any more)."""
        ...

    def take(self, path: str, target: Path) -> None:
        """Have a file at a place on this disk, too; raises ``FileNotFoundError``. Done twice it does no harm."""
        ...

    def remove(self, paths: Iterable[str]) -> None:
        """Delete files; silent about those that are not there."""
        ...


def largest(path: str) -> float:
    """Return how many bytes a file may have at a place in a mailbox; -1 where there is no such place."""
    if _FILE.fullmatch(path):
        return float("inf")
    if _PIECE.fullmatch(path):
        return PIECE_BYTES
    return _JSON_BYTES if path in _DOCUMENTS else -1


class FolderMailbox:
    """A mailbox that the API puts files into; see ``Mailbox``."""

    def __init__(self, folder: Path):
        self._folder = folder

    def contents(self) -> dict[str, Content]:
        """Return what is there; see ``Mailbox.contents``."""
        found = dict[str, Content]()
        for folder, _, names in os.walk(self._folder):
            for file in (Path(folder, name) for name in names if not name.startswith(".")):
                try:
                    status = file.stat()
                except FileNotFoundError:
                    continue
                path = str(file.relative_to(self._folder))
                if status.st_size <= largest(path):
                    found[path] = Content(status.st_size, f"{status.st_mtime_ns} {status.st_ino}")
        return found

    def read(self, path: str, size: int) -> bytes | None:
        """Return a file's content; see ``Mailbox.read``."""
        try:
            with (self._folder / path).open("rb") as file:
                return file.read(size)
        except FileNotFoundError:
            return None

    def take(self, path: str, target: Path) -> None:
        """Link a file, which is only ever replaced as a whole; see ``Mailbox.take``."""
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        os.link(self._folder / path, temporary)
        os.replace(temporary, target)

    def remove(self, paths: Iterable[str]) -> None:
        """Delete files; see ``Mailbox.remove``."""
        for path in paths:
            (self._folder / path).unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete all there is, silent where there is nothing."""
        shutil.rmtree(self._folder, ignore_errors=True)
