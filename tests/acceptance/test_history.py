"""Jobs as they are found again: pages, filters and counts, read from a real database."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from benchmarks.studio import Studio
from peft_studio.client import Client
from tests.acceptance.jobs import short_job

pytestmark = pytest.mark.acceptance
HELD = {"max_steps": 5000, "num_epochs": 100}


@pytest.fixture(scope="module")
def made(studio: Studio) -> Iterator[list[str]]:
    """One job at work, three behind it in the queue, and the newest one cancelled."""
    with studio.client() as client:
        ids = [client.create_job(short_job(project_name="history", **HELD)).job_id for _ in range(5)]
        client.cancel_job(ids[-1])
        yield ids
        for job_id in reversed(ids[:-1]):
            client.cancel_job(job_id)


def listed(client: Client, **query: Any) -> list[str]:
    return [job.job_id for job in client.list_jobs(project="history", **query).jobs]


def test_pages_follow_each_other_and_hold_every_job_once(studio: Studio, made: list[str]) -> None:
    seen: list[str] = []
    with studio.client() as client:
        cursor = None
        while True:
            page = client.list_jobs(project="history", limit=2, cursor=cursor)
            assert page.total == len(made)
            seen += [job.job_id for job in page.jobs]
            if (cursor := page.next_cursor) is None:
                break
    assert seen == made[::-1]


def test_jobs_are_found_by_state_provider_and_project(studio: Studio, made: list[str]) -> None:
    with studio.client() as client:
        assert listed(client, status="cancelled") == made[-1:]
        assert sorted(listed(client, status="pending") + listed(client, status="running")) == sorted(made[:-1])
        assert listed(client, status="completed") == []
        assert listed(client, provider="local") == made[::-1]
        assert listed(client, provider="runpod") == []
        assert client.list_jobs(project="nobody's").total == 0


@pytest.mark.parametrize("cursor", ["job_0", "job_" + "0" * 32, "1"])
def test_what_is_no_cursor_is_refused(studio: Studio, cursor: str) -> None:
    headers = {"Authorization": f"Bearer {studio.key}"}
    answer = httpx.get(f"{studio.url}/api/v1/jobs", params={"cursor": cursor}, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["field"] == "cursor"
