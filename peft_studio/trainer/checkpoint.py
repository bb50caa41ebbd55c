"""Checkpoints: everything needed to go on as if nothing had happened, on disk whole or not at all."""

import hashlib
import io
import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import safetensors.torch
import torch
from peft import get_peft_model_state_dict
from pydantic import BaseModel, ValidationError

from peft_studio.run_dir import Request, RunDir, make_durable
from peft_studio.trainer.report import Reporter

KEPT = 2
WEIGHTS = "adapter_model.safetensors"
STATE = "state.pt"
PROGRESS = "progress.json"
MANIFEST = "manifest.json"


class Progress(BaseModel):
    """How far training has come, over all attempts."""

    step: int = 0  # the place in the data follows from it: an epoch's order is a function of seed and epoch
    epoch: float | None = None  # for readers
    tokens: int = 0
    supervised_tokens: int = 0
    seconds: float = 0.0
    loss: float = 0.0
    best_loss: float | None = None
    eval_loss: float | None = None
    eval_metrics: dict[str, float] = {}
    evaluated_at: int = 0
    best_eval_loss: float | None = None
    best_eval_metrics: dict[str, float] = {}
    best_step: int = 0
    looks_without_gain: int = 0
    first_loss: float | None = None
    senseless_steps: int = 0
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


class Stateful(Protocol):
    """A part of the training that has to be put back as it was; its state holds tensors and plain values alone."""

    def state_dict(self) -> dict[str, Any]:
        """Say what there is to remember."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Put it back."""
        ...


class Checkpoints:
    """
    A run's checkpoints, in folders ``step-N``; each is also an ordinary PEFT adapter.

    A folder gets its name only when all that is in it is durable, its manifest last, so a folder with the name is
    whole unless the disk lost something since: then the manifest's hashes tell. Of several processes one ``writes``.
    """

    def __init__(self, run: RunDir, purpose: str, report: Reporter, *, writes: bool = True):
        self._run, self._writes = run, writes
        self._folder = run.checkpoints
        self._purpose = purpose
        self._report = report

    @property
    def requested(self) -> bool:
        """Whether somebody asked for a checkpoint out of turn."""
        return self._run.is_asked(Request.CHECKPOINT)

    def save(self, progress: Progress, model: Any, parts: Mapping[str, Stateful]) -> None:
        """Save, and delete all but the newest; where that fails the older ones stay and a warning is reported."""
        if not self._writes:
            return
        try:
            self._save(progress, model, parts)
        finally:
            self._run.withdraw(Request.CHECKPOINT)

    def _save(self, progress: Progress, model: Any, parts: Mapping[str, Stateful]) -> None:
        final = self._folder / f"step-{progress.step}"
        if final.is_dir() and self._defect(final) is None:
            (final / MANIFEST).touch()  # whoever asked for a checkpoint sees that this one is the answer
            return
        temporary = self._folder / f".step-{progress.step}"
        try:
            self._report.sync()
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            self._fill(temporary, progress, model, parts)
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
            make_durable(self._folder)
            self._prune(progress.step, progress.best_step)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            self._report.log(
                f"The checkpoint of step {progress.step} could not be saved ({error}); training goes on, and the one "
                "before stays.",
                "WARNING",
            )

    def restore(self, model: Any, parts: Mapping[str, Stateful]) -> Progress | None:
        """Put the newest whole checkpoint back into model, parts and random generators; None without one."""
        for leftover in self._folder.glob(".step-*") if self._writes else ():  # of a writer that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        for folder in self._folders():
            defect = self._defect(folder)
            if defect is None:
                return self._load(folder, model, parts)
            self._report.log(f"The checkpoint {folder.name} is not used: {defect}.", "WARNING")
        return None

    def _fill(self, folder: Path, progress: Progress, model: Any, parts: Mapping[str, Stateful]) -> None:
        weights = get_peft_model_state_dict(model, save_embedding_layers=False)
        state = io.BytesIO()
        torch.save(
            {
                # As they are: what PEFT stores of some adapters is less than what goes on being trained.
                "parameters": _trained(model),
                "random": random_state(),
                **{name: part.state_dict() for name, part in parts.items()},
            },
            state,
        )
        model.peft_config["default"].save_pretrained(str(folder))
        # Made in memory and written by Python, so that a full disk is one kind of error.
        write_durably(folder / WEIGHTS, safetensors.torch.save(_unshared(weights), {"format": "pt"}))
        write_durably(folder / STATE, state.getbuffer())
        write_durably(folder / PROGRESS, progress.model_dump_json().encode())
        files = {path.name: _facts(path) for path in sorted(folder.iterdir())}
        manifest = Manifest(purpose=self._purpose, files=files)
        write_durably(folder / MANIFEST, manifest.model_dump_json(indent=2).encode())
        make_durable(folder)

    def take_back(self, step: int, model: Any, parts: Mapping[str, Stateful]) -> bool:
        """Put what is trained, and of the rest these parts alone, back to a step's state; False if that is lost."""
        folder = self._folder / f"step-{step}"
        if self._defect(folder) is not None:
            return False
        _put_back(torch.load(folder / STATE, map_location="cpu", weights_only=True), model, parts)
        return True

    def _load(self, folder: Path, model: Any, parts: Mapping[str, Stateful]) -> Progress:
        state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        _put_back(state, model, parts)
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

    def _prune(self, step: int, best: int) -> None:
        # One of a later step was passed over, or training would have gone on from there.
        folders = self._folders()
        later = [folder for folder in folders if _step_of(folder) > step]
        for folder in [*later, *folders[len(later) + KEPT :]]:
            if _step_of(folder) != best:
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


def _put_back(state: dict[str, Any], model: Any, parts: Mapping[str, Stateful]) -> None:
    parameters = _trained(model)
    assert parameters.keys() == state["parameters"].keys()
    for name, value in state["parameters"].items():
        parameters[name].copy_(value)
    for name, part in parts.items():
        part.load_state_dict(state[name])


def _trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def _unshared(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy what several layers share: the format knows no shared memory."""
    seen: set[int] = set()
    alone: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        place = weight.untyped_storage().data_ptr()
        alone[name] = weight.clone().contiguous() if place in seen else weight.contiguous()
        seen.add(place)
    return alone


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _facts(path: Path) -> FileFacts:
    with path.open("rb") as file:
        return FileFacts(size=os.fstat(file.fileno()).st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())
