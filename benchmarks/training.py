"""
Tokens a second, memory and start-up of the trainer, beside what users would run instead, on the same rows.

Every peer gets an environment of its own, in .bench/, which is made once. Runs alternate, so that a machine that is
slow for a while is slow for all; ratios are of medians. That the work was the same is checked by the mean loss.
In bfloat16, where that is asked for, everybody holds the base model and multiplies in it, and adapters stay float32.
"""

import os
import tempfile
from pathlib import Path

from benchmarks.report import Figure
from benchmarks.side_by_side import OURS, Peer, Run, in_our_order, in_turns, job_of, medians, run_ours, run_theirs
from benchmarks.studio import ROOT
from benchmarks.workload import write_model, write_rows
from peft_studio.choices import Precision

MODEL = os.environ.get("PEFT_STUDIO_BENCH_MODEL", "llama-30m")
ROUNDS = int(os.environ.get("PEFT_STUDIO_BENCH_ROUNDS", "2"))
ROWS = int(os.environ.get("PEFT_STUDIO_BENCH_ROWS", "96"))
PRECISION = Precision(os.environ.get("PEFT_STUDIO_BENCH_PRECISION", "float32"))
TARGETS = ["q_proj", "v_proj"]

_HF = ("transformers==5.23.0", "peft==0.21.2", "accelerate==1.15.0", "datasets", "psutil")
_TRL = ("trl==1.16.0", "transformers==5.23.0", "peft==0.21.2", "psutil")
_FACTORY = ("llamafactory==0.9.5", "psutil")
_AXOLOTL = ("-r", str(ROOT / "benchmarks" / "peers" / "axolotl.txt"))
_AXOLOTL_ALONE = ("axolotl==0.19.0",)
_IN_ORDER = {"train_sampling_strategy": "sequential"}
_ONE_PACK = {"per_device_train_batch_size": 1}  # a pack is as long as four rows of a batch
_AXOLOTL_PACKED = {"sample_packing": True, "pad_to_sequence_len": False, "attn_implementation": "sdpa"}

PEERS = {
    "transformers Trainer": Peer("hf_trainer", _HF, _IN_ORDER),
    "TRL SFTTrainer": Peer("trl_sft", _TRL, _IN_ORDER),
    "LLaMA-Factory": Peer("llama_factory", _FACTORY, {"disable_shuffling": True}),
    "LLaMA-Factory, neat_packing": Peer(
        "llama_factory", _FACTORY, {"disable_shuffling": True, "neat_packing": True, **_ONE_PACK}, tutorial=False
    ),
}
if PRECISION is Precision.FLOAT32:  # on a processor Axolotl refuses any other
    PEERS["Axolotl"] = Peer("axolotl_sft", _AXOLOTL, alone=_AXOLOTL_ALONE)
    PEERS["Axolotl, sample_packing"] = Peer(
        "axolotl_sft",
        _AXOLOTL,
        {**_AXOLOTL_PACKED, **_ONE_PACK},
        tutorial=False,
        alone=_AXOLOTL_ALONE,
        whole_steps=True,
    )


def measure() -> list[Figure]:
    """Run everybody in turn, some rounds; compare medians."""
    with tempfile.TemporaryDirectory(prefix="peft-studio-bench-") as name:
        folder = Path(name)
        model, rows = write_model(MODEL, folder), write_rows(folder / "rows.jsonl", ROWS)
        ours, theirs = (job_of(model, some, TARGETS, precision=PRECISION) for some in (rows, in_our_order(rows)))
        runs = in_turns(
            PEERS,
            ROUNDS,
            lambda turn: run_ours(folder / f"run-{turn}", ours),
            lambda peer: run_theirs(peer, folder, theirs, PRECISION),
        )
    return _figures(runs)


def _figures(runs: dict[str, list[Run]]) -> list[Figure]:
    speed = medians(runs, lambda run: run.tokens_per_second)
    memory = medians(runs, lambda run: run.peak_mb)
    start = medians(runs, lambda run: run.seconds_to_first_forward)
    peers = list(PEERS)
    figures = [
        Figure(f"{name}: real tokens a second, {MODEL}, {PRECISION}", value, "") for name, value in speed.items()
    ]
    figures += [
        Figure(f"ours over {name}", speed[OURS] / speed[name], "times", at_least=2.3 if PEERS[name].tutorial else 1.6)
        for name in peers
    ]
    figures += [Figure(f"{name}: peak memory", value, "MB") for name, value in memory.items()]
    leanest, quickest = min(memory[name] for name in peers), min(start[name] for name in peers)
    figures += [Figure("our peak memory over the leanest peer's", memory[OURS] / leanest, "times", at_most=0.65)]
    figures += [Figure(f"{name}: start of process to first step", value, "s") for name, value in start.items()]
    return [*figures, Figure("our start over the fastest peer's", start[OURS] / quickest, "times", at_most=0.5)]
