"""Jobs as they are found again: pages, filters and counts, read from a real database."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from benchmarks.studio import Studio
from infra.embedded.studio import RunningStudio
from infra.settings import DEPLOYMENT
from peft_studio.client import Client
from peft_studio.jobs import job_id_of
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


@pytest.mark.parametrize("project", [None, "planned"])
def test_a_job_that_nothing_has_tagged_yet_is_found_by_what_it_says(studio: Studio, project: str | None) -> None:
    about = RunningStudio.model_validate_json((studio.data_dir / "studio.json").read_bytes())
    user, _, password = Path(about.prefect_auth_file).read_text().partition(":")
    with httpx.Client(base_url=about.prefect_api_url, auth=(user, password)) as prefect, studio.client() as client:
        deployment = prefect.get(f"/deployments/name/{DEPLOYMENT}").raise_for_status().json()["id"]
        later = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2100-01-01T00:00:00Z"}}
        wanted = {"parameters": {"config": short_job(project_name=project)}, "state": later}
        made = prefect.post(f"/deployments/{deployment}/create_flow_run", json=wanted).raise_for_status().json()
        job_id = job_id_of(UUID(made["id"]))
        try:
            assert not [tag for tag in made["tags"] if tag.startswith(("project:", "provider:"))]
            for named in (project or "default", None):
                for provider in ("local", None):
                    newest = client.list_jobs(project=named, provider=provider, limit=1).jobs
                    assert [job.job_id for job in newest] == [job_id]
            others = client.list_jobs(project="default" if project else "planned", limit=100).jobs
            assert job_id not in [job.job_id for job in others]
            assert client.list_jobs(provider="runpod").total == 0
        finally:
            prefect.delete(f"/flow_runs/{made['id']}").raise_for_status()


@pytest.mark.parametrize("cursor", ["job_0", "job_" + "0" * 32, "1"])
def test_what_is_no_cursor_is_refused(studio: Studio, cursor: str) -> None:
    headers = {"Authorization": f"Bearer {studio.key}"}
    answer = httpx.get(f"{studio.url}/api/v1/jobs", params={"cursor": cursor}, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["field"] == "cursor"
