"""
What the studio adds to a job on a rented machine, and how fast it shows what can be rented while a vendor is slow.

Overhead is all of a job's time in its flow (the sum of its steps, as ``GET /jobs/{id}`` has them), except

* boot: from the machine's creation to the first line of its command, as its simulated vendor has them;
* training: from the trainer's own first event to the last one before the machine is given back.

So renting, looking, the machine's program and its claim, sending model, data and adapter, the evaluation on the
machine, giving back, storing and keeping books all count. There is nothing to download from a hub.
"""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles

import httpx

from benchmarks.rented import RentingStudio, renting_studio
from benchmarks.report import Figure
from benchmarks.studio import demo_job
from peft_studio.events import Event, Log, Status
from peft_studio.jobs import JobStatus, Phase

VENDORS, SLOW = ("runpod", "huggingface", "vast"), "vast"
JOBS = 5
SLOW_SECONDS = 4.0  # for each of its answers; its list takes five of them
LOOKS, LOOKS_A_SECOND = 1500, 20  # long enough for all lists to be renewed more than once


def measure() -> list[Figure]:
    """Run jobs one after the other, then look at the resources at a fixed pace."""
    with (
        tempfile.TemporaryDirectory(prefix="peft-studio-bench-") as folder,
        renting_studio(Path(folder), *VENDORS) as renting,
    ):
        _overhead(renting)  # the first job of a studio's life touches everything once
        overheads = [_overhead(renting) for _ in range(JOBS)]
        renting.delays[SLOW] = SLOW_SECONDS
        began = time.monotonic()
        looks, missing = asyncio.run(_look(renting))
        ages = [_longest(renting, began, mark) for mark in ("/catalog/gpus", "/jobs/hardware", "/bundles/")]
    cuts = quantiles(looks, n=100)
    return [
        Figure(f"added to a rented job, median of {JOBS}", median(overheads), "s", at_most=5),
        Figure("added to a rented job, most", max(overheads), "s"),
        Figure("GET /resources over three providers, one slow: p50", cuts[49], "ms"),
        Figure("GET /resources over three providers, one slow: p99", cuts[98], "ms", at_most=300),
        Figure("oldest list that was shown", max(ages), "s", at_most=60),
        Figure("answers without the slow provider's machines", missing, "", at_most=0),
    ]


def _overhead(renting: RentingStudio) -> float:
    """Run a job; return the seconds that are neither boot nor training."""
    with renting.studio.client() as client:
        job_id = client.create_job(demo_job(provider="runpod", force=True, max_steps=30, test_prompt=None)).job_id
        events = list(client.follow(job_id))
        job = client.get_job(job_id)
    assert job.status is JobStatus.COMPLETED, job.error
    [machine] = [one for one in renting.clouds["runpod"].machines.values() if job_id.removeprefix("job_") in one.name]
    assert machine.started is not None
    return sum(job.step_seconds.values()) - (machine.started - machine.created) - _training_seconds(events)


def _training_seconds(events: Sequence[Event]) -> float:
    """Return how long the trainer was at work, by its own clock."""
    begins = next(one for one in events if isinstance(one, Log) and one.message == "Starting training...")
    released = next(one for one in events if isinstance(one, Status) and one.phase is Phase.RELEASING)
    ends = max(one.timestamp for one in events[: events.index(released)])
    return (ends - begins.timestamp).total_seconds()


async def _look(renting: RentingStudio) -> tuple[list[float], int]:
    """Ask for the resources at a fixed pace, whatever the answers do; return latencies (ms) and how many lack some."""
    headers = {"Authorization": f"Bearer {renting.studio.key}"}
    missing = 0

    async def one(client: httpx.AsyncClient) -> float:
        nonlocal missing
        began = time.perf_counter()
        answer = (await client.get("/resources")).raise_for_status()
        taken = time.perf_counter() - began
        missing += not any(resource["provider"] == SLOW for resource in answer.json()["resources"])
        return 1000 * taken

    async with httpx.AsyncClient(base_url=f"{renting.studio.url}/api/v1", headers=headers, timeout=30) as client:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            tasks: list[asyncio.Task[float]] = []
            for number in range(LOOKS):
                await asyncio.sleep(max(0.0, began + number / LOOKS_A_SECOND - time.perf_counter()))
                tasks.append(group.create_task(one(client)))
    return [task.result() for task in tasks], missing


def _longest(renting: RentingStudio, since: float, mark: str) -> float:
    """Return the longest time in which a vendor was not asked for its list, up to now."""
    times = [at for at, address in renting.asked if mark in address]
    times = [max([at for at in times if at < since], default=since), *(at for at in times if at >= since)]
    return max(after - before for before, after in pairwise([*times, time.monotonic()]))
