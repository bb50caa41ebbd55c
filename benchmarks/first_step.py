"""Seconds from ``POST /jobs`` to the first optimizer step on a warm studio, against a script started cold."""

import subprocess
import sys
import time
from statistics import median

from benchmarks.report import Figure
from benchmarks.studio import ROOT, Studio, demo_job, running_studio
from peft_studio.events import Metrics

ROUNDS = 7


def measure() -> list[Figure]:
    """Alternate the two, and compare medians."""
    ours: list[float] = []
    cold: list[float] = []
    with running_studio() as studio:
        _first_step(studio)  # the first job of a studio's life touches everything once
        for _ in range(ROUNDS):
            ours.append(_first_step(studio))
            cold.append(_cold_script())
    return [
        Figure("POST /jobs to first step (median)", median(ours), "s", at_most=3),
        Figure("POST /jobs to first step (slowest of 7)", max(ours), "s"),
        Figure("cold python script to first step (median)", median(cold), "s"),
        Figure("cold script over ours", median(cold) / median(ours), "times"),
    ]


def _first_step(studio: Studio) -> float:
    with studio.client() as client:
        began = time.perf_counter()
        job_id = client.create_job(demo_job(force=True, max_steps=2)).job_id
        seconds = 0.0
        for event in client.follow(job_id):
            if not seconds and isinstance(event, Metrics) and "loss" in event.metrics:
                seconds = time.perf_counter() - began
        return seconds


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
