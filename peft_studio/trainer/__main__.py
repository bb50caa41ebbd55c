"""
Train one adapter.

    python -m peft_studio.trainer RUN_DIR [--tied-to-stdin]

Reads config.json (and plan.json) in the run directory; appends to events.jsonl while it works; leaves adapter/ and
summary.json. Started again in the same directory it goes on from the newest checkpoint. Exit codes: 0 done, 64 failed
for good, 70 crashed, 73 another trainer is at work there, 74 no room on the disk, 75 stopped with a checkpoint.
PEFT_STUDIO_THREADS sets the number of CPU threads.
"""

import argparse

from peft_studio.run_dir import RunDir
from peft_studio.trainer.command import command_line, start
from peft_studio.trainer.quick_imports import quick_imports
from peft_studio.trainer.stop import StopSignal


def work(run: RunDir, _: argparse.Namespace, stop: StopSignal) -> int:
    """Load torch and what else it takes, with an ear open for the wish to stop already, and train."""
    with quick_imports(run):
        from peft_studio.trainer import program

    return program.run(run, stop)


if __name__ == "__main__":
    start(command_line("peft_studio.trainer", "Train one adapter."), work)
