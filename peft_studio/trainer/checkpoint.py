"""Checkpoints: everything needed to go on as if nothing had happened, on disk whole or not at all."""

import hashlib
import io
import os
import random
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from pydantic import BaseModel, ValidationError

from peft_studio.trainer.report import Reporter

KEPT = 2
WEIGHTS = "adapter_model.safetensors"
STATE = "state.pt"
PROGRESS = "progress.json"
MANIFEST = "manifest.json"


class Progress(BaseModel):
    """How far training has come, over all attempts."""

    step: int = 0  # the place in the data follows from it: an epoch's order is a function of seed and epoch
    tokens: int = 0
    supervised_tokens: int = 0
    seconds: float = 0.0
    loss: float = 0.0
    best_loss: float | None = None
    eval_loss: float | None = None
    evaluated_at: int = 0
    peak_memory_mb: float = 0.0
    resumed_at: list[int] = []


class FileFacts(BaseModel):
    """A file's size and hash."""

    size: int
    sha256: str


class Manifest(BaseModel):
    """What a checkpoint consists of, and which configuration and rows it belongs to."""

    purpose: str
    files: dict[str, FileFacts]


class Checkpoints:
    """
    A run's checkpoints, in folders ``step-N``; each is also an ordinary PEFT adapter.

    A folder gets its name only when all that is in it is durable, its manifest last, so a folder with the name is
    whole unless the disk lost something since: then the manifest's hashes tell.
    """

    def __init__(self, folder: Path, purpose: str, report: Reporter):
        self._folder = folder
        self._purpose = purpose
        self._report = report

    def save(self, progress: Progress, model: Any, optimizer: torch.optim.Optimizer) -> None:
        """Save, and delete all but the newest; where that fails the older ones stay and a warning is reported."""
        final = self._folder / f"step-{progress.step}"
        if final.is_dir() and self._defect(final) is None:
            return
        temporary = self._folder / f".step-{progress.step}"
        try:
            self._report.sync()
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            self._fill(temporary, progress, model, optimizer)
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
            sync_folder(self._folder)
            self._prune(progress.step)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            self._report.log(
                f"The checkpoint of step {progress.step} could not be saved ({error}); training goes on, and the one "
                "before stays.",
                "WARNING",
            )

    def restore(self, model: Any, optimizer: torch.optim.Optimizer) -> Progress | None:
        """Put the newest whole checkpoint back into model, optimizer and random generators; None without one."""
        for leftover in self._folder.glob(".step-*"):  # of a writer that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        for folder in self._folders():
            defect = self._defect(folder)
            if defect is None:
                return self._load(folder, model, optimizer)
            self._report.log(f"The checkpoint {folder.name} is not used: {defect}.", "WARNING")
        return None

    def _fill(self, folder: Path, progress: Progress, model: Any, optimizer: torch.optim.Optimizer) -> None:
        weights = get_peft_model_state_dict(model, save_embedding_layers=False)
        state = io.BytesIO()
        torch.save({"optimizer": optimizer.state_dict(), "random": random_state()}, state)
        model.peft_config["default"].save_pretrained(str(folder))
        # Made in memory and written by Python, so that a full disk is one kind of error.
        write_durably(folder / WEIGHTS, safetensors.torch.save(weights, {"format": "pt"}))
        write_durably(folder / STATE, state.getbuffer())
        write_durably(folder / PROGRESS, progress.model_dump_json().encode())
        files = {path.name: _facts(path) for path in sorted(folder.iterdir())}
        manifest = Manifest(purpose=self._purpose, files=files)
        write_durably(folder / MANIFEST, manifest.model_dump_json(indent=2).encode())
        sync_folder(folder)

    def _load(self, folder: Path, model: Any, optimizer: torch.optim.Optimizer) -> Progress:
        result = set_peft_model_state_dict(model, safetensors.torch.load_file(folder / WEIGHTS))
        assert not result.unexpected_keys, result.unexpected_keys
        state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        optimizer.load_state_dict(state["optimizer"])
        set_random_state(state["random"])
        return Progress.model_validate_json((folder / PROGRESS).read_bytes())

    def _folders(self) -> list[Path]:
        """All that are there, the newest first."""
        numbered = [path for path in self._folder.glob("step-*") if path.name.removeprefix("step-").isdigit()]
        return sorted(numbered, key=_step_of, reverse=True)

    def _defect(self, folder: Path) -> str | None:
        try:
            manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
            for name, facts in manifest.files.items():
                if _facts(folder / name) != facts:
                    return f"{name} is damaged"
        except (OSError, ValidationError) as error:
            return f"it is not whole ({type(error).__name__})"
        return None if manifest.purpose == self._purpose else "it belongs to another configuration or data set"

    def _prune(self, step: int) -> None:
        # One of a later step was passed over, or training would have gone on from there.
        folders = self._folders()
        later = [folder for folder in folders if _step_of(folder) > step]
        for folder in [*later, *folders[len(later) + KEPT :]]:
            shutil.rmtree(folder, ignore_errors=True)


def random_state() -> dict[str, Any]:
    """The state of every random generator."""
    name, keys, position, has_gauss, gauss = cast(tuple[Any, ...], np.random.get_state(legacy=True))
    return {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put every random generator back to a state."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])


def write_durably(path: Path, content: bytes | memoryview) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until a folder's list of names is on the disk."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _facts(path: Path) -> FileFacts:
    with path.open("rb") as file:
        return FileFacts(size=os.fstat(file.fileno()).st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())
