"""Trainers as processes of their own, for the tests that interfere with them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from peft_studio.events import Metrics
from peft_studio.run_dir import RunDir

Start = Callable[..., "subprocess.Popen[bytes]"]


@contextmanager
def trainers(**environment: str) -> Generator[Start]:
    """Give a function that starts trainers; what is left of them ends with the block."""
    started: list[subprocess.Popen[bytes]] = []

    def start(run: RunDir, *options: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "peft_studio.trainer", str(run.path), *options]
        with run.log.open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=os.environ | environment
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def wait_for_step(run: RunDir, step: int, process: "subprocess.Popen[bytes]", seconds: float = 90) -> None:
    """Wait until a trainer has reported a step."""
    deadline = time.monotonic() + seconds
    while not any(isinstance(event, Metrics) and event.metrics.get("step", 0) >= step for _, event in run.events()):
        assert process.poll() is None, run.log.read_text()
        assert time.monotonic() < deadline, "the trainer does not get anywhere"
        time.sleep(0.02)
