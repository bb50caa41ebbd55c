"""Tokens of earlier jobs: the same rows for the same tokenizer are tokenized once, whoever comes second."""

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from uuid import uuid4

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from peft_studio.config import TrainingConfig
from peft_studio.trainer import TRAINER_VERSION
from peft_studio.trainer.data import Encoded, Group, Row
from peft_studio.trainer.model import Base
from peft_studio.trainer.stored_rows import COUNTS, PARTS, read_rows

DATA_DIR = "PEFT_STUDIO_DATA_DIR"  # a studio's; a trainer that was started by hand keeps nothing
MOST_BYTES = 4 << 30
Parts = tuple[Encoded[Any], Encoded[Any]]
W = TypeVar("W")


class TokenCache:
    """
    A folder of tokenized data sets, each under the hash of all that decides which tokens there are.

    Any number of processes may use it: a file gets its name when it is whole, and says what it has to hold. The ones
    that were used longest ago make way when there is too much.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES):
        self._folder, self._most_bytes = folder, most_bytes

    @classmethod
    def from_environment(cls) -> "TokenCache | None":
        """The cache of the studio that started this process, where it has one."""
        home = os.environ.get(DATA_DIR)
        return cls(Path(home) / "tokens") if home else None

    def load(self, key: str) -> Parts | None:
        """Return what is kept under a key; None where that is nothing, or not what was put there."""
        path = self._folder / f"{key}.safetensors"
        try:
            with safe_open(path, "np") as file:
                known: dict[str, str] = file.metadata() or {}
                names: list[str] = file.keys()
                tensors = {} if "tokens" in names else {name: file.get_tensor(name) for name in names}
            parts = (_read("train", tensors, known), _read("held_out", tensors, known)) if tensors else read_rows(path)
            os.utime(path)
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
        return parts

    def save(self, key: str, parts: Parts) -> None:
        """Keep tokens; a disk that is full costs only that they are not kept."""
        self.write(key, lambda file: file.write(_written(parts)))

    def write(self, key: str, write: Callable[[BinaryIO], W]) -> W | None:
        """Have tokens written into a new file, and keep it; None where the disk does not take it."""
        temporary = self._folder / f".{uuid4().hex}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("x+b") as file:
                written = write(file)
            temporary.rename(self._folder / f"{key}.safetensors")
            self._make_room()
            return written
        except OSError:
            return None
        finally:
            with suppress(OSError):
                temporary.unlink()

    def _make_room(self) -> None:
        for leftover in self._folder.glob(".*"):  # of a writer that was killed
            with suppress(FileNotFoundError):
                if leftover.stat().st_mtime < time.time() - 3600:
                    leftover.unlink()
        files: list[tuple[float, int, Path]] = []
        for path in self._folder.glob("*.safetensors"):
            with suppress(FileNotFoundError):
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._most_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


def cache_key(content: str, config: TrainingConfig, base: Base, limit: int) -> str:
    """Hash all that decides which tokens a data set comes to."""
    tokenizer = base.tokenizer
    told = (
        *(
            TRAINER_VERSION,
            content,
            config.objective,
            config.columns,
            config.long_rows,
            config.validation_split,
            config.seed,
            limit,
        ),
        *(tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, tokenizer.special_tokens_map, base.end),
    )
    return hashlib.sha256(repr(told).encode()).hexdigest()


def _written(parts: Parts) -> bytes:
    tensors: dict[str, Any] = {}
    known: dict[str, str] = {}
    for name, part in zip(PARTS, parts, strict=True):
        groups: Sequence[Group] = part.rows
        empty = [np.empty(0, dtype=np.int64)]
        texts: list[Row] = [text for group in groups for text in group.texts]
        tensors[f"{name}.ids"] = np.concatenate([text.ids for text in texts] or empty).astype(np.int32)
        tensors[f"{name}.learn"] = np.concatenate([text.learn for text in texts] or empty).astype(np.bool_)
        tensors[f"{name}.lengths"] = np.array([len(text.ids) for text in texts], dtype=np.int64)
        tensors[f"{name}.texts"] = np.array([len(group.texts) for group in groups], dtype=np.int64)
        tensors[f"{name}.numbers"] = np.array([len(group.targets) for group in groups], dtype=np.int64)
        tensors[f"{name}.targets"] = np.concatenate([group.targets for group in groups] or empty).astype(np.float64)
        known |= {f"{name}.{count}": str(getattr(part, count)) for count in COUNTS}
        known[f"{name}.sha256"] = part.fingerprint()
    return safetensors.numpy.save(tensors, known)


def _read(name: str, tensors: dict[str, Any], known: dict[str, str]) -> Encoded[Any]:
    """Read groups; raises ``ValueError`` where they are others than those that were written."""
    lengths = tensors[f"{name}.lengths"]
    ids = _parted(tensors[f"{name}.ids"].astype(np.int64), lengths)
    learn = _parted(tensors[f"{name}.learn"], lengths)
    texts = (Row(*row) for row in zip(ids, learn, strict=True))
    targets = _parted(tensors[f"{name}.targets"], tensors[f"{name}.numbers"])
    groups = [
        Group(tuple(islice(texts, int(count))), numbers)
        for count, numbers in zip(tensors[f"{name}.texts"], targets, strict=True)
    ]
    counts: dict[str, Any] = {count: int(known[f"{name}.{count}"]) for count in COUNTS}
    part = Encoded(groups, **counts)
    if part.fingerprint() != known[f"{name}.sha256"]:
        raise ValueError("The file's tokens are others than those that were written.")
    return part


def _parted(values: Any, lengths: Any) -> list[Any]:
    return np.split(values, np.cumsum(lengths)[:-1]) if len(lengths) else []
