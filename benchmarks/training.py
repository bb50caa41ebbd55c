"""
Tokens a second, memory and start-up of the trainer, beside what users would run instead, on the same rows.

Every peer gets an environment of its own, in .bench/, which is made once. Runs alternate, so that a machine that is
slow for a while is slow for all; ratios are of medians. That the work was the same is checked by the mean loss.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.report import Figure
from benchmarks.studio import ROOT
from benchmarks.workload import write_model, write_rows
from peft_studio.config import TrainingConfig
from peft_studio.events import Log, Metrics
from peft_studio.run_dir import RunDir
from peft_studio.trainer.data import epoch_order

MODEL = os.environ.get("PEFT_STUDIO_BENCH_MODEL", "llama-30m")
ROUNDS = int(os.environ.get("PEFT_STUDIO_BENCH_ROUNDS", "2"))
ROWS = int(os.environ.get("PEFT_STUDIO_BENCH_ROWS", "96"))
WARM_STEPS = 2  # not counted, as in peers/clock.py
TARGETS = ["q_proj", "v_proj"]
LEARNING_RATE = 5e-4  # adapters start from other random numbers: with a higher one losses would tell them apart
MAX_LENGTH = 1024
ENVIRONMENTS = ROOT / ".bench"
LOSSES_ALIKE = 0.005  # steps of packed rows are not the same steps, but an epoch is the same epoch


@dataclass(frozen=True)
class Peer:
    """A program, what its environment consists of, and how it is set up beside what is the same for all."""

    script: str
    packages: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    tutorial: bool = True  # whether users who follow its tutorial run it so


_HF = ("transformers==5.23.0", "peft==0.21.2", "accelerate==1.15.0", "datasets", "psutil")
_TRL = ("trl==1.16.0", "transformers==5.23.0", "peft==0.21.2", "psutil")
_FACTORY = ("llamafactory==0.9.5", "psutil")
_IN_ORDER = {"train_sampling_strategy": "sequential"}
_PACKED = {"neat_packing": True, "per_device_train_batch_size": 1}  # a pack is as long as four rows of a batch

PEERS = {
    "transformers Trainer": Peer("hf_trainer", _HF, _IN_ORDER),
    "TRL SFTTrainer": Peer("trl_sft", _TRL, _IN_ORDER),
    "LLaMA-Factory": Peer("llama_factory", _FACTORY, {"disable_shuffling": True}),
    "LLaMA-Factory, neat_packing": Peer(
        "llama_factory", _FACTORY, {"disable_shuffling": True, **_PACKED}, tutorial=False
    ),
}


@dataclass(frozen=True)
class Run:
    """What one run came to."""

    tokens_per_second: float
    tokens: int
    loss: float
    peak_mb: float
    seconds_to_first_forward: float


def measure() -> list[Figure]:
    """Run everybody in turn, some rounds; compare medians."""
    runs: dict[str, list[Run]] = {name: [] for name in ("ours", *PEERS)}
    with tempfile.TemporaryDirectory(prefix="peft-studio-bench-") as name:
        folder = Path(name)
        model, rows = write_model(MODEL, folder), write_rows(folder / "rows.jsonl", ROWS)
        peers_rows = _in_our_order(rows)
        for turn in range(ROUNDS):
            runs["ours"].append(_ours(folder / f"run-{turn}", model, rows))
            for name, peer in PEERS.items():
                runs[name].append(_theirs(peer, folder, model, peers_rows))
    _require_same_work(runs)
    return _figures(runs)


def _figures(runs: dict[str, list[Run]]) -> list[Figure]:
    speed = {name: median(run.tokens_per_second for run in some) for name, some in runs.items()}
    memory = {name: median(run.peak_mb for run in some) for name, some in runs.items()}
    start = {name: median(run.seconds_to_first_forward for run in some) for name, some in runs.items()}
    peers = list(PEERS)
    figures = [Figure(f"{name}: real tokens a second, {MODEL}", value, "") for name, value in speed.items()]
    figures += [
        Figure(f"ours over {name}", speed["ours"] / speed[name], "times", at_least=2.3 if PEERS[name].tutorial else 1.6)
        for name in peers
    ]
    figures += [Figure(f"{name}: peak memory", value, "MB") for name, value in memory.items()]
    leanest, quickest = min(memory[name] for name in peers), min(start[name] for name in peers)
    figures += [Figure("our peak memory over the leanest peer's", memory["ours"] / leanest, "times", at_most=0.65)]
    figures += [Figure(f"{name}: start of process to first step", value, "s") for name, value in start.items()]
    return [*figures, Figure("our start over the fastest peer's", start["ours"] / quickest, "times", at_most=0.5)]


def _require_same_work(runs: dict[str, list[Run]]) -> None:
    ours = runs["ours"][0]
    for name, some in runs.items():
        for run in some:
            if abs(run.loss / ours.loss - 1) > LOSSES_ALIKE or abs(run.tokens / ours.tokens - 1) > 0.02:
                raise RuntimeError(f"{name} did other work: {run}, ours: {ours}")


def _ours(folder: Path, model: Path, rows: Path) -> Run:
    run = RunDir(folder)
    config = TrainingConfig(
        base_model=str(model),
        dataset_path=str(rows),
        dropout=0,
        target_modules=TARGETS,
        num_epochs=1,
        max_length=MAX_LENGTH,
        learning_rate=LEARNING_RATE,
        validation_split=0,
        checkpoint_steps=1_000_000,
        num_processes=1,
    )
    run.write("config.json", config)
    began = time.time()
    subprocess.run([sys.executable, "-m", "peft_studio.trainer", str(folder)], check=True, capture_output=True)
    summary = run.read_summary()
    assert summary is not None
    steps = [event for _, event in run.events() if isinstance(event, Metrics)]
    ends = [event.timestamp.timestamp() for event in steps]
    rates = [event.metrics["tokens_per_second"] for event in steps]
    seconds = [after - before for before, after in itertools.pairwise(ends)]
    counted = list(zip(rates[1:], seconds, strict=True))[WARM_STEPS - 1 :]
    ready = next(event for _, event in run.events() if isinstance(event, Log) and " rows, " in event.message)
    return Run(
        tokens_per_second=sum(rate * lasted for rate, lasted in counted) / sum(lasted for _, lasted in counted),
        tokens=summary.tokens,
        loss=sum(event.metrics["loss"] for event in steps) / len(steps),
        peak_mb=summary.peak_memory_mb,
        seconds_to_first_forward=ready.timestamp.timestamp() - began,
    )


def _theirs(peer: Peer, folder: Path, model: Path, rows: Path) -> Run:
    job = {
        "model": str(model),
        "rows": str(rows),
        "output": str(folder / "output"),
        "dtype": "float32",
        "target_modules": TARGETS,
        "max_length": MAX_LENGTH,
        "learning_rate": LEARNING_RATE,
        "settings": peer.settings,
    }
    file = folder / "job.json"
    file.write_text(json.dumps(job))
    script = ROOT / "benchmarks" / "peers" / f"{peer.script}.py"
    done = subprocess.run(
        [_environment(peer), str(script), str(file)], capture_output=True, text=True, env=_offline(), cwd=folder
    )
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return Run(**json.loads(line.removeprefix("RESULT ")))
    raise RuntimeError(f"{peer.script} did not finish:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def _environment(peer: Peer) -> Path:
    """Return the peer's Python, with its packages installed."""
    folder = ENVIRONMENTS / peer.script
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "torch==2.13.0", *peer.packages], check=True)
        # For pictures and sound, and built for another torch than the one that takes no CUDA.
        subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision", "torchaudio"], check=True)
        (folder / "complete").touch()
    return python


def _offline() -> dict[str, str]:
    ours = ("PYTHONPATH", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in ours} | {"HF_HUB_OFFLINE": "1"}


def _in_our_order(rows: Path) -> Path:
    """Write the rows as our trainer shuffles them, for those that take them as they come."""
    lines = rows.read_text().splitlines(keepends=True)
    path = rows.with_name("in_order.jsonl")
    path.write_text("".join(lines[i] for i in epoch_order(len(lines), TrainingConfig.model_fields["seed"].default, 0)))
    return path
