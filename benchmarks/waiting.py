"""
How long OpenMP threads should look for work before they sleep: tokens a second of one trainer, and of two at once.

They alternate, with ``GOMP_SPINCOUNT`` at nothing and at what the trainer sets.
"""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.report import Figure
from benchmarks.side_by_side import job_of, run_ours
from benchmarks.workload import write_model, write_rows
from peft_studio.trainer import WAITING

ROUNDS, ROWS = 2, 48
SPINS = {"never": "0", "as the trainer does": WAITING["GOMP_SPINCOUNT"]}


def measure() -> list[Figure]:
    """Measure each in turn; ratios are of medians, to threads that sleep at once."""
    speeds: dict[tuple[str, int], list[float]] = {(name, count): [] for name in SPINS for count in (1, 2)}
    with tempfile.TemporaryDirectory(prefix="peft-studio-bench-") as name:
        folder = Path(name)
        model, rows = write_model("llama-30m", folder), write_rows(folder / "rows.jsonl", ROWS)
        job = job_of(model, rows, ["q_proj", "v_proj"])
        for turn in range(ROUNDS):
            for (spins, count), found in speeds.items():
                os.environ["GOMP_SPINCOUNT"] = SPINS[spins]  # whoever starts a trainer hands it on
                runs = [folder / f"{turn}-{SPINS[spins]}-{count}-{which}" for which in range(count)]
                with ThreadPoolExecutor(count) as pool:
                    found.append(sum(run.tokens_per_second for run in pool.map(partial(run_ours, job=job), runs)))
    figures = [
        Figure(f"{count} at once, looking {name}", median(found), "tokens/s") for (name, count), found in speeds.items()
    ]
    return figures + [
        Figure(f"{count} at once, looking {name} over never", median(found) / median(speeds["never", count]), "times")
        for (name, count), found in speeds.items()
        if name != "never"
    ]
