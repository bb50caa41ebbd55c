"""How long a trainer's events take to a hundred WebSockets that watch one job, and whether each gets all of them."""

import asyncio
import json
import time
from dataclasses import dataclass
from datetime import datetime
from statistics import quantiles
from typing import Any

from websockets.asyncio.client import connect

from benchmarks.report import Figure
from benchmarks.studio import Studio, demo_job, running_studio
from peft_studio.run_dir import RunDir

WATCHERS = 100
STEPS = 300


def measure() -> list[Figure]:
    """Train for real, watch, and compare what every watcher saw, and when, with what the trainer has written."""
    with running_studio(PEFT_STUDIO_CONNECTIONS_PER_KEY=str(WATCHERS)) as studio:
        with studio.client() as client:
            job_id = client.create_job(demo_job(force=True, max_steps=STEPS)).job_id
        began = time.monotonic()
        seen = asyncio.run(_watch_all(studio, job_id))
        seconds = time.monotonic() - began
        written = [str(seq) for seq, _ in RunDir(studio.data_dir / "runs" / job_id).events()]
    latencies = [1000 * seconds for watched in seen for seconds in watched.latencies]
    lost = sum(len(set(written) - {message["cursor"] for _, message in watched.messages}) for watched in seen)
    cuts = quantiles(latencies, n=100)
    return [
        Figure("watchers of one job", len(seen), ""),
        Figure("events each, status and log lines too", len(written), ""),
        Figure("events a second, all watchers together", len(written) * len(seen) / seconds, ""),
        Figure("trainer's metrics to client: p50", cuts[49], "ms"),
        Figure("trainer's metrics to client: p99", cuts[98], "ms", at_most=300),
        Figure("trainer's metrics to client: slowest", max(latencies), "ms"),
        Figure("events lost", lost, "", at_most=0),
    ]


@dataclass(frozen=True)
class _Watched:
    """What one watcher saw, and when; ``since`` is when it had connected."""

    since: float
    messages: list[tuple[float, dict[str, Any]]]

    @property
    def latencies(self) -> list[float]:
        """Seconds that each of the trainer's metrics took; what had happened before is not counted."""
        metrics = [(arrived, message) for arrived, message in self.messages if message["type"] == "metrics"]
        written = [(arrived, datetime.fromisoformat(message["timestamp"]).timestamp()) for arrived, message in metrics]
        return [arrived - at for arrived, at in written if at > self.since]


async def _watch_all(studio: Studio, job_id: str) -> list[_Watched]:
    address = f"{studio.url.replace('http', 'ws', 1)}/ws/jobs/{job_id}"
    return await asyncio.gather(*(_watch(address, studio.key) for _ in range(WATCHERS)))


async def _watch(address: str, key: str) -> _Watched:
    """Follow a job to its end; messages are read when all have come, so that reading them delays none."""
    async with connect(address, additional_headers={"Authorization": f"Bearer {key}"}, open_timeout=60) as socket:
        since = time.time()
        arrivals = [(time.time(), message) async for message in socket]
    return _Watched(since, [(arrived, json.loads(message)) for arrived, message in arrivals])
