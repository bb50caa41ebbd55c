"""
The files of exports: whole in their folder, or not there at all.

Of an export ``exports/EXPORT_ID`` has the lock and the heartbeat of its process, ``work`` while it is made, and
``files``, which appears by one rename and has the export's result in it.
"""

import hashlib
import os
import shutil
from pathlib import Path
from uuid import uuid4

from infra.adapters.store import DELETED
from infra.settings import Settings
from peft_studio.exports import ExportedFile, ExportResult
from peft_studio.run_dir import make_durable, replace_file

_RESULT = ".export.json"


class ExportFolder:
    """One export's folder. All of it may take a while: call it in a thread."""

    def __init__(self, export_id: str, settings: Settings):
        self.path = settings.exports / export_id
        self.files = self.path / "files"
        self._work = self.path / "work"

    def begin(self) -> Path:
        """Return an empty folder to make the files in; what a process has left there that was killed is gone."""
        self.drop()
        self._work.mkdir(parents=True)
        return self._work

    def drop(self) -> None:
        """Remove what is half made."""
        shutil.rmtree(self._work, ignore_errors=True)

    def place(self, result: ExportResult) -> ExportResult:
        """
        Put what was made into its place, in one step; return the result with its files in it.

        Those that the result has already were hashed while they were written, and are not read again.
        """
        files = sorted(path for path in self._work.iterdir() if path.is_file())
        known = {file.name: file for file in result.files}
        result = result.model_copy(update={"files": [known.get(path.name) or _described(path) for path in files]})
        replace_file(self._work / _RESULT, result.model_dump_json().encode())
        for path in (*files, self._work):
            make_durable(path)
        os.rename(self._work, self.files)
        make_durable(self.path)
        return result

    def result(self) -> ExportResult | None:
        """Return what a process has put into place before, which may have died before it could say so."""
        try:
            return ExportResult.model_validate_json((self.files / _RESULT).read_bytes())
        except FileNotFoundError:
            return None

    def found(self) -> dict[str, Path]:
        """Return the files by name; none where the export is not whole."""
        if not self.files.is_dir():
            return {}
        return {path.name: path for path in sorted(self.files.iterdir()) if path.is_file() and path.name != _RESULT}

    def set_aside(self) -> Path | None:
        """Take the folder away, in one step; return where it is until it is deleted, None where there is none."""
        aside = self.path.with_name(f"{DELETED}{self.path.name}.{uuid4().hex[:8]}")
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return None
        return aside

    def put_back(self, aside: Path) -> None:
        """Undo ``set_aside``."""
        os.rename(aside, self.path)


def _described(path: Path) -> ExportedFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ExportedFile(name=path.name, size_bytes=path.stat().st_size, sha256=digest)
