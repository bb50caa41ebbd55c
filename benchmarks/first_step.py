"""
Seconds to the first optimizer step on a warm studio, from ``POST /jobs`` and from the trainer's start, against a script
started cold.
"""

import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

from benchmarks.report import Figure
from benchmarks.studio import ROOT, Studio, demo_job, running_studio
from peft_studio.events import Metrics, Status
from peft_studio.jobs import Phase

ROUNDS = 7


def measure() -> list[Figure]:
    """Alternate the two, and compare medians."""
    ours: list[_Start] = []
    cold: list[float] = []
    with running_studio() as studio:
        _first_step(studio)  # the first job of a studio's life touches everything once
        for _ in range(ROUNDS):
            ours.append(_first_step(studio))
            cold.append(_cold_script())
    typical, of_trainer = median(start.of_job for start in ours), median(start.of_trainer for start in ours)
    return [
        Figure("POST /jobs to first step (median)", typical, "s", at_most=3),
        Figure("POST /jobs to first step (slowest of 7)", max(start.of_job for start in ours), "s"),
        Figure("start of the trainer to first step (median)", of_trainer, "s", at_most=1),
        Figure("cold python script to first step (median)", median(cold), "s"),
        Figure("cold script over ours", median(cold) / typical, "times"),
    ]


@dataclass(frozen=True)
class _Start:
    """Seconds to the first optimizer step, from the submission and from when the trainer is started."""

    of_job: float
    of_trainer: float


def _first_step(studio: Studio) -> _Start:
    with studio.client() as client:
        submitted = datetime.now(UTC)
        job_id = client.create_job(demo_job(force=True, max_steps=2)).job_id
        events = list(client.follow(job_id))
    started = next(at.timestamp for at in events if isinstance(at, Status) and at.phase is Phase.TRAINING)
    stepped = next(at.timestamp for at in events if isinstance(at, Metrics) and "loss" in at.metrics)
    return _Start((stepped - submitted).total_seconds(), (stepped - started).total_seconds())


def _cold_script() -> float:
    job = demo_job()
    command = [sys.executable, "-m", "benchmarks.cold_train", job["base_model"], job["dataset_path"]]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
    assert process.stdout is not None
    if "first step" not in process.stdout.readline():
        raise RuntimeError("The cold script failed: run it by hand.")
    seconds = time.perf_counter() - began
    process.wait()
    return seconds
