"""What the trainer's two programs share on the command line."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from peft_studio.run_dir import RunDir
from peft_studio.trainer.stop import StopSignal, stop_on_end_of_stdin, stop_on_signals

Work = Callable[[RunDir, argparse.Namespace, StopSignal], int]


def command_line(program: str, description: str) -> argparse.ArgumentParser:
    """Make a parser of what both programs take."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("run_dir", type=Path, help="the run directory, which holds config.json")
    parser.add_argument("--tied-to-stdin", action="store_true", help="stop when standard input ends")
    return parser


def start(parser: argparse.ArgumentParser, work: Work) -> None:
    """Read the command line, listen for the wish to stop, do the work, and end the process with its exit code."""
    arguments = parser.parse_args()
    if not (arguments.run_dir / "config.json").is_file():
        parser.error(f"there is no config.json in {arguments.run_dir}")
    stop = StopSignal()
    stop_on_signals(stop)
    if arguments.tied_to_stdin:
        stop_on_end_of_stdin(stop)
    sys.exit(work(RunDir(arguments.run_dir.absolute()), arguments, stop))
