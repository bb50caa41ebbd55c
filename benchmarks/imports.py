"""What a cold trainer's imports cost, beside importing the same libraries as they are, in turns."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.report import Figure
from benchmarks.side_by_side import job_of
from benchmarks.studio import ROOT
from peft_studio.config import TrainingConfig
from peft_studio.run_dir import RunDir
from peft_studio.trainer.quick_imports import STOCK

ROUNDS = 3
IMPORT = """
import json, resource, sys
from pathlib import Path
from peft_studio.run_dir import RunDir
from peft_studio.trainer.quick_imports import quick_imports
with quick_imports(RunDir(Path(sys.argv[1]))):
    import peft_studio.trainer.program
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


def measure() -> list[Figure]:
    """Compare medians of the processor's seconds and of peak memory."""
    found: dict[str, list[list[float]]] = {"": [], "1": []}
    with tempfile.TemporaryDirectory(prefix="peft-studio-bench-") as name:
        run = RunDir(Path(name))
        run.write("config.json", TrainingConfig(**job_of(Path("model"), Path("rows.jsonl"), ["q_proj"])))
        for turn in range(ROUNDS + 1):
            for stock, costs in found.items():
                command = [sys.executable, "-c", IMPORT, name]
                done = subprocess.run(
                    command, env=os.environ | {STOCK: stock}, cwd=ROOT, capture_output=True, check=True
                )
                if turn:  # the first one reads the libraries from the disk
                    costs.append(json.loads(done.stdout.splitlines()[-1]))
    ours, theirs = ([median(column) for column in zip(*costs, strict=True)] for costs in found.values())
    return [
        Figure("imports as they are, processor's time", theirs[0], "s"),
        Figure("the trainer's over them, processor's time", ours[0] / theirs[0], "times"),
        Figure("imports as they are, peak memory", theirs[1], "MB"),
        Figure("the trainer's over them, peak memory", ours[1] / theirs[1], "times"),
    ]
