"""Answers kept for a day, so that a request that is sent again gets the first one: a file each, named by a hash."""

import asyncio
import hashlib
import logging
import time
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from peft_studio.run_dir import replace_file

DAY_SECONDS = 24 * 3600.0
_CLEAN_SECONDS = 3600.0  # how often files that are too old are looked for
log = logging.getLogger(__name__)


class KeptAnswer(BaseModel):
    """An answer, and a hash of the request that it was given to; ``body`` is None where it held a secret."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    request: str
    status: int
    headers: list[tuple[str, str]]
    body: bytes | None


class KeptAnswers:
    """The answers in one folder, by the name that each was kept under; they outlive the process."""

    def __init__(self, folder: Path, keep_seconds: float = DAY_SECONDS):
        self._folder = folder
        self._keep_seconds = keep_seconds
        self._cleaned_at = float("-inf")

    async def get(self, name: str) -> KeptAnswer | None:
        """Return the answer kept under a name, unless it is too old."""
        return await asyncio.to_thread(self._get, self._path(name))

    async def put(self, name: str, answer: KeptAnswer) -> None:
        """Keep an answer; one that cannot be kept is logged, for what it answers has been done all the same."""
        try:
            await asyncio.to_thread(self._put, self._path(name), answer)
        except OSError as error:
            log.warning("An answer to a repeatable request cannot be kept: %s", error)

    def _path(self, name: str) -> Path:
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()}.json"

    def _get(self, path: Path) -> KeptAnswer | None:
        try:
            if self._is_old(path):
                return None
            return KeptAnswer.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValidationError):
            return None

    def _put(self, path: Path, answer: KeptAnswer) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._clean()
        replace_file(path, answer.model_dump_json().encode())

    def _clean(self) -> None:
        """Remove what is too old, the half-written files of killed processes too."""
        if time.monotonic() - self._cleaned_at < _CLEAN_SECONDS:
            return
        self._cleaned_at = time.monotonic()
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # one that is being written is moved at any time
                if self._is_old(path):
                    path.unlink()

    def _is_old(self, path: Path) -> bool:
        return time.time() - path.stat().st_mtime > self._keep_seconds
