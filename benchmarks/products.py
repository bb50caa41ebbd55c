"""
What training spends its time on: the share of steps that matrix products take, on a processor, attention, and the rest.

Where attention is made of products, those are among them: of several matrices at a time, which nothing else is.

The trainer runs here, under PyTorch's profiler, which itself costs some of the rest.
"""

import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.report import Figure
from benchmarks.side_by_side import job_of
from benchmarks.workload import write_model, write_rows
from peft_studio.config import TrainingConfig
from peft_studio.events import Metrics
from peft_studio.run_dir import RunDir
from peft_studio.trainer.outcome import DONE
from peft_studio.trainer.stop import StopSignal

MODEL = os.environ.get("PEFT_STUDIO_BENCH_MODEL", "llama-30m")
ROWS = int(os.environ.get("PEFT_STUDIO_BENCH_ROWS", "48"))
OF_SEVERAL = {"aten::bmm", "aten::baddbmm"}
PRODUCTS = {"aten::mm", "aten::addmm", "aten::addmm_", *OF_SEVERAL}
ATTENTION = "aten::_scaled_dot_product_"  # forwards and backwards
SHOWN = 5  # of the rest


def measure() -> list[Figure]:
    """Train all rows once; the first step is not counted."""
    import torch

    from peft_studio.trainer.program import run as train

    with tempfile.TemporaryDirectory(prefix="peft-studio-bench-") as name:
        folder = Path(name)
        model, rows = write_model(MODEL, folder), write_rows(folder / "rows.jsonl", ROWS)
        run = RunDir(folder / "run")
        run.write("config.json", TrainingConfig(**job_of(model, rows, ["q_proj", "v_proj"])))
        began = time.time()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
            assert train(run, StopSignal()) == DONE
        steps = [event.timestamp.timestamp() - began for _, event in run.events() if isinstance(event, Metrics)]
    seconds = _seconds_by_operation(profiled.events(), steps[0], steps[-1])
    whole = steps[-1] - steps[0]
    of_several = sum(seconds[name] for name in OF_SEVERAL)
    products = sum(seconds.pop(name, 0.0) for name in PRODUCTS)
    attention = sum(seconds.pop(name) for name in [*seconds] if name.startswith(ATTENTION))
    return [
        Figure(f"matrix products, {MODEL}", 100 * products / whole, "% of the time", at_least=70),
        Figure("of which attention's", 100 * of_several / whole, "%"),
        Figure("PyTorch's attention", 100 * attention / whole, "%"),
        *(Figure(name, 100 * spent / whole, "%") for name, spent in seconds.most_common(SHOWN)),
        Figure("everything else", 100 * (whole - products - attention) / whole, "%"),
    ]


def _seconds_by_operation(events: Any, start: float, end: float) -> Counter[str]:
    """Add up what each operation took itself between two moments, in seconds after the profiler's start."""
    seconds = Counter[str]()
    for event in events:
        if start <= event.time_range.start / 1e6 <= end:
            seconds[event.name] += event.self_cpu_time_total / 1e6
    return seconds
