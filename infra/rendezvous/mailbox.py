"""A machine's mailbox: a folder of files that it sends and the studio takes, in a directory here or in a bucket."""

import os
import shutil
from pathlib import Path
from typing import Any

import fsspec

from peft_studio.run_dir import replace_file


class Mailbox:
    """One machine's files, by their paths in it; ``url`` is file:// or s3://. Safe to use from several processes."""

    def __init__(self, url: str, **options: Any):
        self.url = url.rstrip("/")
        # Listings are never kept: the machine adds to them at any moment.
        known = {} if "://" not in url or url.startswith("file://") else {"use_listings_cache": False}
        self._files, root = fsspec.url_to_fs(self.url, **known, **options)
        self._root = str(root).rstrip("/")
        self.folder = Path(self._root) if self._files.protocol[0] == "file" else None

    def read(self, path: str) -> bytes | None:
        """Return a file's content, or None where it is not there (yet)."""
        try:
            return self._files.cat_file(self._place(path))
        except FileNotFoundError:
            return None

    def write(self, path: str, content: bytes) -> None:
        """Put a file in its place, whole."""
        if self.folder is None:
            self._files.pipe_file(self._place(path), content)
            return
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, content)

    def names(self, folder: str) -> list[str]:
        """Return the names of what is in a folder, in order; empty where there is none."""
        try:
            found = self._files.ls(self._place(folder), detail=False)
        except FileNotFoundError:
            return []
        names = (str(path).rstrip("/").rsplit("/", 1)[1] for path in found)
        return sorted(name for name in names if not name.startswith("."))

    def take(self, path: str, target: Path) -> None:
        """Have a file at a place on this disk, too; raises ``FileNotFoundError``. Done twice it does no harm."""
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        if self.folder is not None:
            os.link(self.folder / path, temporary)
        else:
            self._files.get_file(self._place(path), str(temporary))
        os.replace(temporary, target)

    def remove(self, path: str = "") -> None:
        """Delete a file or a folder, or all there is; silent where it is not there."""
        place = self._place(path)
        if self.folder is not None:
            shutil.rmtree(place, ignore_errors=True) if Path(place).is_dir() else Path(place).unlink(missing_ok=True)
        elif self._files.exists(place):
            self._files.rm(place, recursive=True)

    def _place(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/")
