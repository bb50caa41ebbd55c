"""Reading with much history: ``GET /jobs`` among 100 to 100,000 jobs, beside Prefect's own list, ``GET /jobs/{id}``."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import quantiles

import asyncpg
import httpx
import psutil

from benchmarks.report import Figure
from benchmarks.studio import Studio, demo_job, running_studio
from infra.embedded.database import USER
from infra.embedded.environment import database_password, prefect_auth_file
from infra.embedded.studio import RunningStudio
from infra.settings import Settings
from peft_studio.jobs import flow_run_id_of

SIZES = (100, 10_000, 100_000)
LISTS = 300
READS, READERS = 3000, 8
# Copies of one completed job, as Prefect stores it: the run, its last state, its result; a second apart.
_COPY = """
WITH n AS (SELECT i, gen_random_uuid() AS id FROM generate_series($2::int, $3::int) i),
s AS (INSERT INTO flow_run_state (id, flow_run_id, type, name, timestamp, message, state_details)
      SELECT gen_random_uuid(), n.id, s.type, s.name, s.timestamp, s.message, s.state_details
      FROM n, flow_run_state s JOIN flow_run r ON r.state_id = s.id WHERE r.id = $1),
r AS (INSERT INTO flow_run (id, created, expected_start_time, {columns})
      SELECT n.id, r.created - n.i * interval '1 second', r.created - n.i * interval '1 second', {values}
      FROM n, flow_run r WHERE r.id = $1)
INSERT INTO artifact (id, flow_run_id, type, data)
SELECT gen_random_uuid(), n.id, a.type, a.data FROM n, artifact a
WHERE a.flow_run_id = $1 AND a.type = 'peft-studio.result'
"""
_OWN = ("id", "created", "expected_start_time", "idempotency_key", "state_id")


def measure() -> list[Figure]:
    """Fill the history step by step; at each step list jobs through the API and through Prefect, alternating."""
    with running_studio(PEFT_STUDIO_REQUESTS_PER_MINUTE="1000000") as studio:
        return asyncio.run(_measure(studio))


async def _measure(studio: Studio) -> list[Figure]:
    with studio.client() as client:
        job_id = client.create_job(demo_job(max_steps=1)).job_id
        for _ in client.follow(job_id):
            pass
    settings = Settings(data_dir=studio.data_dir)
    prefect_url = RunningStudio.model_validate_json((studio.data_dir / "studio.json").read_bytes()).prefect_api_url
    user, _, password = prefect_auth_file(settings).read_text().partition(":")
    figures: list[Figure] = []
    tails: list[float] = []
    async with (
        httpx.AsyncClient(base_url=f"{studio.url}/api/v1", headers={"Authorization": f"Bearer {studio.key}"}) as ours,
        httpx.AsyncClient(base_url=prefect_url, auth=(user, password), timeout=30) as prefects,
    ):
        there = 1
        for size in SIZES:
            await _fill(studio, settings, job_id, there, size)
            there = size
            listing, filtering = await _alternating(
                lambda: ours.get("/jobs"),
                lambda: prefects.post("/flow_runs/filter", json={"limit": 20, "sort": "EXPECTED_START_TIME_DESC"}),
            )
            tails.append(listing[98])
            figures += [
                Figure(f"GET /jobs among {size:,} jobs: p50", listing[49], "ms"),
                Figure(f"GET /jobs among {size:,} jobs: p99", listing[98], "ms"),
                Figure(f"Prefect's list over ours, {size:,} jobs: p50", filtering[49] / listing[49], "times"),
            ]
        figures.append(Figure("p99 among 100,000 jobs over p99 among 100", tails[-1] / tails[0], "times", at_most=2))
        figures += await _throughput(studio, ours, job_id)
    return figures


async def _alternating(*calls: Callable[[], Awaitable[httpx.Response]]) -> list[list[float]]:
    """Call each in turn; return the percentiles of its latency in ms."""
    latencies: list[list[float]] = [[] for _ in calls]
    for _ in range(LISTS):
        for call, latency in zip(calls, latencies, strict=True):
            began = time.perf_counter()
            (await call()).raise_for_status()
            latency.append(1000 * (time.perf_counter() - began))
    return [quantiles(latency, n=100) for latency in latencies]


async def _throughput(studio: Studio, client: httpx.AsyncClient, job_id: str) -> list[Figure]:
    """Read one job from several clients at once; count what the API's process spends on it."""
    api = next(p for p in psutil.Process(studio.process.pid).children() if "api.app" in " ".join(p.cmdline()))

    async def reader() -> None:
        for _ in range(READS // READERS):
            (await client.get(f"/jobs/{job_id}")).raise_for_status()

    spent, began = sum(api.cpu_times()[:2]), time.perf_counter()
    await asyncio.gather(*(reader() for _ in range(READERS)))
    seconds, spent = time.perf_counter() - began, sum(api.cpu_times()[:2]) - spent
    return [
        Figure("GET /jobs/{id} a second, as fast as one client process asks", READS / seconds, "a second"),
        Figure("GET /jobs/{id} a second on one core of the API", READS / spent, "a second", at_least=300),
    ]


async def _fill(studio: Studio, settings: Settings, job_id: str, there: int, size: int) -> None:
    """Make the history hold ``size`` jobs."""
    _, password = database_password(settings)
    socket = str((studio.data_dir / "tmp").resolve() / "postgres")
    connection = await asyncpg.connect(user=USER, password=password, host=socket, database="postgres")
    try:
        rows = await connection.fetch(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'flow_run'"
        )
        names = [row["column_name"] for row in rows if row["column_name"] not in _OWN]
        columns, values = ", ".join(names), ", ".join(f"r.{name}" for name in names)
        await connection.execute(
            _COPY.format(columns=columns, values=values), flow_run_id_of(job_id), there, size - 1, timeout=300
        )
        await connection.execute(
            "UPDATE flow_run r SET state_id = s.id FROM flow_run_state s"
            " WHERE s.flow_run_id = r.id AND r.state_id IS NULL"
        )
        for table in ("flow_run", "flow_run_state", "artifact"):
            await connection.execute(f"VACUUM ANALYZE {table}")  # as the server does by itself, some minutes later
    finally:
        await connection.close()
