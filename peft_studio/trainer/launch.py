"""Starts the processes that train one adapter together, and ends them together."""

import os
import subprocess
import sys
import time

import torch

from peft_studio.config import TrainingConfig
from peft_studio.errors import InvalidConfig
from peft_studio.ports import free_port
from peft_studio.run_dir import RunDir
from peft_studio.trainer.outcome import BUSY, FAILED, FULL, STOPPED, Ended
from peft_studio.trainer.report import Reporter
from peft_studio.trainer.stop import StopSignal

LOOK_SECONDS = 0.1
GRACE_SECONDS = 10.0  # in which the others notice by themselves that one has ended


def processes_for(config: TrainingConfig) -> int:
    """Return how many processes are to train: by default one on each GPU."""
    gpus = torch.cuda.device_count()
    wanted = config.num_processes or max(1, gpus)
    there = gpus or len(os.sched_getaffinity(0))
    if wanted > there:
        raise InvalidConfig(
            f"{wanted} processes cannot train on {there} {'GPU' if gpus else 'core'}(s).",
            field="num_processes",
            issue=f"Give at most {there}, or leave it out.",
        )
    return min(wanted, config.effective_batch_size)


def launch(run: RunDir, count: int, stop: StopSignal) -> None:
    """Have ``count`` processes train; raises ``Ended`` with what they came to, where that is not a finished adapter."""
    port = free_port()
    members = [_start(run, rank, count, port) for rank in range(count)]
    try:
        codes = _wait(members, stop)
    finally:
        for member in members:
            member.kill()
            member.wait()
            if member.stdin:
                member.stdin.close()
    if not any(codes):
        return
    if failure := run.read_failure():
        Reporter(run).failure(failure)  # once, whoever of them wrote it
    raise Ended(_verdict(codes))


def _start(run: RunDir, rank: int, count: int, port: int) -> "subprocess.Popen[bytes]":
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    threads = {} if torch.cuda.is_available() else {"OMP_NUM_THREADS": max(1, len(os.sched_getaffinity(0)) // count)}
    return subprocess.Popen(
        # They read the end of this pipe as the end of their owner, however that came about.
        [sys.executable, "-m", "peft_studio.trainer", str(run.path), "--tied-to-stdin"],
        stdin=subprocess.PIPE,
        env=os.environ | {name: str(value) for name, value in (threads | place).items()},
    )


def _wait(members: "list[subprocess.Popen[bytes]]", stop: StopSignal) -> list[int]:
    """Return the exit codes of all; once one has failed the others are ended."""
    told, deadline = False, float("inf")
    while True:
        codes = [member.poll() for member in members]
        if None not in codes:
            return [code for code in codes if code is not None]
        if any(codes):
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        if stop.requested and not told:
            told = True
            for member in members:
                member.terminate()
        if time.monotonic() > deadline:
            for member in members:
                member.kill()
        time.sleep(LOOK_SECONDS)


def _verdict(codes: list[int]) -> int:
    """Choose the code that says most: what would fail again, then a checkpoint, then whatever ended the first."""
    for telling in (FAILED, FULL, BUSY):
        if telling in codes:
            return telling
    if codes[0] == STOPPED:
        return STOPPED
    first = next(code for code in codes if code)
    return first if first > 0 else 128 - first
