"""
The trainer on a GPU beside the fastest that users would run instead: LoRA and QLoRA of an 8 B model, in turns.

    python -m benchmarks gpu_training        # make bench-gpu

The base model is built from a configuration, with random weights, unless PEFT_STUDIO_BENCH_GPU_MODEL names a folder or
a model of the Hugging Face Hub; a smaller one for a smaller GPU is llama-1b. All run in bfloat16, keep activations,
take four rows a batch and four batches a step, and adapt all linear layers.
"""

import os
import tempfile
from pathlib import Path

import torch
from huggingface_hub import snapshot_download

from benchmarks.report import Figure
from benchmarks.side_by_side import (
    LOSSES_ALIKE,
    OURS,
    Peer,
    Run,
    in_our_order,
    in_turns,
    job_of,
    medians,
    run_ours,
    run_theirs,
)
from benchmarks.workload import MODELS, write_model, write_rows
from peft_studio.errors import ResourceUnavailable

MODEL = os.environ.get("PEFT_STUDIO_BENCH_GPU_MODEL", "llama-8b")
ROUNDS = int(os.environ.get("PEFT_STUDIO_BENCH_ROUNDS", "3"))
ROWS = int(os.environ.get("PEFT_STUDIO_BENCH_GPU_ROWS", "512"))
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WAYS = {"LoRA": {"algorithm": "lora"}, "QLoRA": {"algorithm": "qlora", "quantization": "int4"}}

_TRL = ("trl==1.16.0", "transformers==5.23.0", "peft==0.21.2", "bitsandbytes==0.50.2", "liger-kernel==0.8.5", "psutil")
_TO_BUILD = ("ninja", "packaging", "setuptools", "wheel")
_IN_ORDER = {"train_sampling_strategy": "sequential", "gradient_checkpointing": False}

PEERS = {
    "TRL, Liger, FlashAttention": Peer(
        "trl_sft",
        (*_TRL, *_TO_BUILD),
        _IN_ORDER | {"use_liger_kernel": True},
        home="trl_gpu",
        built=("flash-attn==2.8.3.post2",),
    ),
    "Unsloth": Peer("unsloth_sft", ("unsloth==2026.10.9", "psutil"), _IN_ORDER, unneeded=()),
}


def measure() -> list[Figure]:
    """Run everybody in turn, some rounds, for each way to hold the base model; compare medians."""
    require_gpu()
    with tempfile.TemporaryDirectory(prefix="peft-studio-bench-gpu-") as name:
        folder = Path(name)
        model, rows = _model(folder), write_rows(folder / "rows.jsonl", ROWS)
        return [figure for way in WAYS for figure in _measure(way, folder, model, rows)]


def require_gpu() -> None:
    """Raise ``ResourceUnavailable`` where there is nothing to measure on."""
    if not torch.cuda.is_available():
        raise ResourceUnavailable(
            f"bench-gpu measures on an NVIDIA GPU, and torch {torch.__version__} finds none here. Run it where "
            "nvidia-smi lists one, with a build of torch for CUDA."
        )


def _measure(way: str, folder: Path, model: Path, rows: Path) -> list[Figure]:
    ours = job_of(model, rows, TARGETS, **WAYS[way])
    theirs, held = job_of(model, in_our_order(rows), TARGETS), WAYS[way].get("quantization")
    runs = in_turns(
        PEERS,
        ROUNDS,
        lambda turn: run_ours(folder / f"{way}-{turn}", ours),
        lambda peer: run_theirs(peer, folder, theirs, "bfloat16", on_cpu=False, quantization=held),
    )
    return figures(way, runs)


def figures(way: str, runs: dict[str, list[Run]]) -> list[Figure]:
    """Say how fast and how large everybody was, and how ours compares with each."""
    speed = medians(runs, lambda run: run.tokens_per_second)
    memory = medians(runs, lambda run: run.peak_mb)
    loss = medians(runs, lambda run: run.loss)
    peers = [name for name in runs if name != OURS]
    named = f"{way}, {MODEL}"
    found = [Figure(f"{named}, {name}: real tokens a second", value, "") for name, value in speed.items()]
    found += [Figure(f"{named}: ours over {name}", speed[OURS] / speed[name], "times", at_least=1) for name in peers]
    found += [Figure(f"{named}, {name}: peak memory", value, "MB") for name, value in memory.items()]
    leanest = min(memory[name] for name in peers)
    found += [Figure(f"{named}: our peak memory over the leanest peer's", memory[OURS] / leanest, "times", at_most=1)]
    apart = max(abs(loss[name] / loss[OURS] - 1) for name in peers)
    return [*found, Figure(f"{named}: the furthest mean loss from ours", apart * 100, "%", at_most=LOSSES_ALIKE * 100)]


def _model(folder: Path) -> Path:
    if MODEL in MODELS:
        return write_model(MODEL, folder)
    return Path(MODEL) if Path(MODEL).is_dir() else Path(snapshot_download(MODEL))
