"""Many clients at once, each of which repeats itself: every job is there once, and none is lost."""

import asyncio
from uuid import uuid4

import httpx
import pytest

from benchmarks.studio import Studio
from tests.acceptance.jobs import short_job

# It takes as long as the Prefect server needs for 200 runs on two cores.
pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
CLIENTS, JOBS_EACH = 20, 10
PROJECT = "many-clients"


async def submit_twice(client: httpx.AsyncClient) -> list[str]:
    """Submit jobs, each of them twice at the same time with one idempotency key; return the ids of all answers."""
    ids: list[str] = []
    for number in range(JOBS_EACH):
        body = {"config": short_job(project_name=PROJECT, seed=number)}
        headers = {"Idempotency-Key": uuid4().hex}
        answers = await asyncio.gather(*(client.post("/jobs", json=body, headers=headers) for _ in range(2)))
        ids += [answer.raise_for_status().json()["job_id"] for answer in answers]
    return ids


async def found(client: httpx.AsyncClient) -> list[str]:
    """Every job of the project, page by page."""
    ids: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        answer = await client.get("/jobs", params={"project": PROJECT, "limit": "100"} | cursor)
        page = answer.raise_for_status().json()
        ids += [job["job_id"] for job in page["jobs"]]
        if page["next_cursor"] is None:
            assert page["total"] == len(ids)
            return ids
        cursor = {"cursor": page["next_cursor"]}


async def cancel(client: httpx.AsyncClient, ids: list[str]) -> None:
    for job_id in ids:
        (await client.post(f"/jobs/{job_id}/cancel")).raise_for_status()


async def all_at_once(studio: Studio, keys: list[str]) -> tuple[list[list[str]], list[str]]:
    def client(key: str) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.AsyncClient(base_url=f"{studio.url}/api/v1", headers=headers, timeout=60)

    async with client(studio.key) as reader:
        blocker = await reader.post("/jobs", json={"config": short_job(max_steps=100_000, num_epochs=1000)})
        clients = [client(key) for key in keys]
        answered = await asyncio.gather(*map(submit_twice, clients))
        there = await found(reader)
        await asyncio.gather(*(cancel(one, sorted(set(ids))) for one, ids in zip(clients, answered, strict=True)))
        await cancel(reader, [blocker.raise_for_status().json()["job_id"]])
        for one in clients:
            await one.aclose()
    return answered, there


def test_two_hundred_jobs_sent_twice_by_twenty_clients_are_two_hundred_jobs(studio: Studio) -> None:
    with studio.client() as admin:
        keys = [admin.create_key(f"client-{number}").key for number in range(CLIENTS)]
    answered, there = asyncio.run(all_at_once(studio, keys))
    for ids in answered:
        assert ids[0::2] == ids[1::2]
    made = [job_id for ids in answered for job_id in ids[0::2]]
    assert len(set(made)) == CLIENTS * JOBS_EACH
    assert sorted(there) == sorted(made)
