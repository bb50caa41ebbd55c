"""
Measure a stored adapter on the held-out rows of its job, beside its base model.

    python -m peft_studio.trainer.evaluate RUN_DIR ADAPTER_DIR [--tied-to-stdin]

Loads the adapter the way any user of it would, with stock PEFT, and writes evaluation.json.
"""

import argparse
from pathlib import Path

from peft_studio.run_dir import RunDir
from peft_studio.trainer.command import command_line, start
from peft_studio.trainer.quick_imports import quick_imports
from peft_studio.trainer.stop import StopSignal


def work(run: RunDir, arguments: argparse.Namespace, stop: StopSignal) -> int:
    """Load torch and what else it takes, and measure."""
    with quick_imports(run):
        from peft_studio.trainer import job_evaluation

    return job_evaluation.run(run, arguments.adapter, stop)


if __name__ == "__main__":
    parser = command_line("peft_studio.trainer.evaluate", "Measure a stored adapter.")
    parser.add_argument("adapter", type=Path, help="the adapter's folder")
    start(parser, work)
