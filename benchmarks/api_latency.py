"""Latency of ``POST /jobs`` at 10 a second and of ``GET /jobs/{id}`` at 50 a second, on a studio that is at work."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import quantiles

import httpx

from benchmarks.report import Figure
from benchmarks.studio import Studio, demo_job, running_studio

POSTS, POSTS_A_SECOND = 200, 10
GETS, GETS_A_SECOND = 1500, 50


def measure() -> list[Figure]:
    """Send requests at a fixed pace, whatever the answers do, and take percentiles."""
    with running_studio(PEFT_STUDIO_REQUESTS_PER_MINUTE="1000000") as studio:
        return asyncio.run(_measure(studio))


async def _measure(studio: Studio) -> list[Figure]:
    headers = {"Authorization": f"Bearer {studio.key}"}
    async with httpx.AsyncClient(base_url=f"{studio.url}/api/v1", headers=headers, timeout=30) as client:
        long = await _submit(client, max_steps=1_000_000, num_epochs=1000, checkpoint_steps=1000)
        await _trains(client, long)
        training = await _latencies(client, "while a job trains", limits=True)
        (await client.post(f"/jobs/{long}/cancel")).raise_for_status()
        short = await _latencies(client, "while jobs of one step follow one another", limits=False)
    return training + short


async def _latencies(client: httpx.AsyncClient, when: str, *, limits: bool) -> list[Figure]:
    body = {"config": demo_job(force=True, max_steps=1)}
    newest = await _submit(client, force=True, max_steps=1)
    post = await _paced(lambda: client.post("/jobs", json=body), POSTS, POSTS_A_SECOND)
    get = await _paced(lambda: client.get(f"/jobs/{newest}"), GETS, GETS_A_SECOND)
    return [
        *_figures(f"POST /jobs at 10 a second, {when}", post, at_most=250 if limits else None),
        *_figures(f"GET /jobs/{{id}} at 50 a second, {when}", get, at_most=50 if limits else None),
    ]


async def _submit(client: httpx.AsyncClient, **changes: object) -> str:
    answer = await client.post("/jobs", json={"config": demo_job(**changes)})
    return answer.raise_for_status().json()["job_id"]


async def _trains(client: httpx.AsyncClient, job_id: str) -> None:
    while (await client.get(f"/jobs/{job_id}")).json()["phase"] != "training":
        await asyncio.sleep(0.2)


def _figures(name: str, milliseconds: list[float], at_most: float | None = None) -> list[Figure]:
    cuts = quantiles(milliseconds, n=100)
    return [
        Figure(f"{name}: p50", cuts[49], "ms"),
        Figure(f"{name}: p99", cuts[98], "ms", at_most=at_most),
        Figure(f"{name}: slowest", max(milliseconds), "ms"),
    ]


async def _paced(send: Callable[[], Awaitable[httpx.Response]], count: int, per_second: int) -> list[float]:
    """Start ``count`` requests, evenly spaced; return their latencies in ms. Any error ends the benchmark."""

    async def one() -> float:
        began = time.perf_counter()
        (await send()).raise_for_status()
        return 1000 * (time.perf_counter() - began)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[float]] = []
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
            tasks.append(group.create_task(one()))
    return [task.result() for task in tasks]
