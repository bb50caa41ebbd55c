"""One training job by our trainer and by others, each in an environment of its own: what each run came to."""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.studio import ROOT
from peft_studio.config import TrainingConfig
from peft_studio.events import Log, Metrics
from peft_studio.run_dir import RunDir
from peft_studio.trainer import KERNELS_KEPT, WAITING
from peft_studio.trainer.allocator import allocator_environment
from peft_studio.trainer.data import epoch_order

WARM_STEPS = 2  # not counted, as in peers/clock.py
MAX_LENGTH = 1024
LEARNING_RATE = 5e-4  # adapters start from other random numbers: with a higher one losses would tell them apart
ENVIRONMENTS = ROOT / ".bench"
LOSSES_ALIKE = 0.005  # steps of packed rows are not the same steps, but an epoch is the same epoch
TOKENS_ALIKE = 0.02
LEFT_OUT = 0.2  # of the tokens of some 64 rows, by who makes whole steps alone
OURS = "ours"
# What of transformers' TrainingArguments is the same for all peers, for all are built on its Trainer.
ARGUMENTS: dict[str, Any] = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "lr_scheduler_type": "linear",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}


@dataclass(frozen=True)
class Peer:
    """A program, what its environment consists of, and how it is set up beside what is the same for all."""

    script: str
    packages: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    tutorial: bool = True  # whether users who follow its tutorial run it so
    home: str = ""  # the environment's name, where it is not the script's
    # For pictures and sound, and built for another torch than the one that takes no CUDA.
    unneeded: tuple[str, ...] = ("torchvision", "torchaudio")
    built: tuple[str, ...] = ()  # against what is installed by then; it does without where that fails
    alone: tuple[str, ...] = ()  # without what they ask for beside all that is in ``packages``
    whole_steps: bool = False  # whether it leaves out an epoch's last packs, where they are too few for a step


@dataclass(frozen=True)
class Run:
    """What one run came to."""

    tokens_per_second: float
    tokens: int
    loss: float
    peak_mb: float
    seconds_to_first_forward: float


def in_turns(
    peers: Mapping[str, Peer], rounds: int, ours: Callable[[int], Run], theirs: Callable[[Peer], Run]
) -> dict[str, list[Run]]:
    """Run everybody in turn, some rounds: a machine that is slow for a while is slow for all."""
    runs: dict[str, list[Run]] = {name: [] for name in (OURS, *peers)}
    for turn in range(rounds):
        runs[OURS].append(ours(turn))
        for name, peer in peers.items():
            runs[name].append(theirs(peer))
    require_same_work(runs, {name: LEFT_OUT for name, peer in peers.items() if peer.whole_steps})
    return runs


def require_same_work(runs: Mapping[str, Sequence[Run]], left_out: Mapping[str, float]) -> None:
    """Raise where somebody has seen other tokens than we, or fewer than may be left out, or has another mean loss."""
    ours = runs[OURS][0]
    for name, some in runs.items():
        for run in some:
            tokens, loss = run.tokens / ours.tokens - 1, run.loss / ours.loss - 1
            if abs(loss) > LOSSES_ALIKE or not -left_out.get(name, TOKENS_ALIKE) <= tokens <= TOKENS_ALIKE:
                raise RuntimeError(f"{name} did other work: {run}, ours: {ours}")


def medians(runs: Mapping[str, Sequence[Run]], of: Callable[[Run], float]) -> dict[str, float]:
    """Return the median of one number for everybody."""
    return {name: median(map(of, some)) for name, some in runs.items()}


def job_of(model: Path, rows: Path, targets: Sequence[str], **more: Any) -> dict[str, Any]:
    """Return what our trainer is to do on a model and rows, by the fields of a job: one epoch, nothing beside it."""
    return {
        "base_model": str(model),
        "dataset_path": str(rows),
        "dropout": 0,
        "target_modules": list(targets),
        "num_epochs": 1,
        "max_length": MAX_LENGTH,
        "learning_rate": LEARNING_RATE,
        "validation_split": 0,
        "checkpoint_steps": 1_000_000,
        "num_processes": 1,
        **more,
    }


def run_ours(folder: Path, job: dict[str, Any]) -> Run:
    """Train by our trainer in a process of its own, and tell from its events what it came to."""
    run = RunDir(folder)
    run.write("config.json", TrainingConfig(**job))
    began = time.time()
    command = [sys.executable, "-m", "peft_studio.trainer", str(folder)]
    environment = os.environ | allocator_environment()  # as the studio starts it
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"our trainer did not finish:\n{done.stderr[-4000:]}")
    summary = run.read_summary()
    assert summary is not None
    events = [event for _, event in run.events()]
    steps = [event for event in events if isinstance(event, Metrics)]
    said = [event for event in events if isinstance(event, Log)]
    for event in said:
        if event.message.startswith(("In use:", "Not used:")):
            print(f"ours: {event.message}", file=sys.stderr)
    ends = [event.timestamp.timestamp() for event in steps]
    rates = [event.metrics["tokens_per_second"] for event in steps]
    seconds = [after - before for before, after in itertools.pairwise(ends)]
    counted = list(zip(rates[1:], seconds, strict=True))[WARM_STEPS - 1 :]
    ready = next(event for event in said if " rows, " in event.message)
    return Run(
        tokens_per_second=sum(rate * lasted for rate, lasted in counted) / sum(lasted for _, lasted in counted),
        tokens=summary.tokens,
        loss=sum(event.metrics["loss"] for event in steps) / len(steps),
        peak_mb=summary.peak_memory_mb,
        seconds_to_first_forward=ready.timestamp.timestamp() - began,
    )


def run_theirs(
    peer: Peer,
    folder: Path,
    job: dict[str, Any],
    dtype: str = "float32",
    on_cpu: bool = True,
    quantization: str | None = None,
) -> Run:
    """Train by a peer: our job's fields are told to it in one file, with its own settings."""
    told = {
        "model": job["base_model"],
        "rows": job["dataset_path"],
        "target_modules": job["target_modules"],
        "max_length": job["max_length"],
        "dtype": dtype,
        "on_cpu": on_cpu,
        "quantization": quantization,
        "arguments": {
            **ARGUMENTS,
            "output_dir": str(folder / "output"),
            "learning_rate": job["learning_rate"],
            **peer.settings,
        },
    }
    file = folder / "job.json"
    file.write_text(json.dumps(told))
    script = ROOT / "benchmarks" / "peers" / f"{peer.script}.py"
    done = subprocess.run(
        [_environment(peer), str(script), str(file)], capture_output=True, text=True, env=_offline(), cwd=folder
    )
    for line in done.stdout.splitlines():
        if line.startswith("NOTE "):
            print(f"{peer.script}: {line.removeprefix('NOTE ')}", file=sys.stderr)
        if line.startswith("RESULT "):
            return Run(**json.loads(line.removeprefix("RESULT ")))
    raise RuntimeError(f"{peer.script} did not finish:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def in_our_order(rows: Path) -> Path:
    """Write the rows as our trainer shuffles them, for those that take them as they come."""
    lines = rows.read_text().splitlines(keepends=True)
    path = rows.with_name("in_order.jsonl")
    path.write_text("".join(lines[i] for i in epoch_order(len(lines), TrainingConfig.model_fields["seed"].default, 0)))
    return path


def _environment(peer: Peer) -> Path:
    """Return the peer's Python, with its packages installed."""
    folder = ENVIRONMENTS / (peer.home or peer.script)
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        pip = [str(python), "-m", "pip"]
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([*pip, "install", "--quiet", "torch==2.13.0", *peer.packages], check=True)
        if peer.alone:
            subprocess.run([*pip, "install", "--quiet", "--no-deps", *peer.alone], check=True)
        if peer.unneeded:
            subprocess.run([*pip, "uninstall", "--quiet", "--yes", *peer.unneeded], check=True)
        for package in peer.built:
            if subprocess.run([*pip, "install", "--quiet", "--no-build-isolation", package]).returncode:
                print(f"{package} could not be built for {folder.name}; it is measured without.", file=sys.stderr)
        (folder / "complete").touch()
    return python


def _offline() -> dict[str, str]:
    # What this process has from our trainer's package, a peer would not have.
    ours = {"PYTHONPATH", "VIRTUAL_ENV", *WAITING, *KERNELS_KEPT}
    return {name: value for name, value in os.environ.items() if name not in ours} | {"HF_HUB_OFFLINE": "1"}
