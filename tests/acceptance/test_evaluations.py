"""A job whose gate refuses its adapter, an admin who overrides that, and an evaluation that outlives its process."""

import os
import signal
from collections.abc import Iterator
from time import sleep
from typing import Any
from uuid import uuid4

import httpx
import pytest

from benchmarks.studio import Studio
from infra.jobs.heartbeats import HEARTBEAT
from peft_studio.jobs import JobStatus
from tests.acceptance.conftest import eventually, logs
from tests.acceptance.jobs import follow, job, submit

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def refused(studio: Studio) -> str:
    gate = {"measure": "chrf", "min_gain": 99}
    settings = {"generation_rows": 5, "max_new_tokens": 8}
    job_id = submit(studio, deploy={"platform": "local", "only_if": gate}, evaluation=settings)
    follow(studio, job_id)
    return job_id


@pytest.fixture
def api(studio: Studio) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {studio.new_key(f'evaluations {uuid4().hex}')}"}
    with httpx.Client(base_url=f"{studio.url}/api/v1", headers=headers, timeout=60) as client:
        yield client


def test_a_refused_job_is_complete_and_an_admin_has_its_adapter_deployed(
    studio: Studio, refused: str, api: httpx.Client
) -> None:
    finished = job(studio, refused)
    assert finished.status is JobStatus.COMPLETED, logs(studio.data_dir)
    assert finished.endpoint is None and finished.artifact is not None
    assert finished.promotion and finished.promotion.is_refused
    assert "at least 99 was asked for" in finished.promotion.reason
    adapter = {"adapter_id": finished.adapter_id}
    assert api.post("/deployments", json=adapter).status_code == 409
    answer = api.post(f"/jobs/{refused}/promote", json={"reason": "A rehearsal."})
    assert answer.status_code == 200, answer.text
    deployment = answer.json()["deployment_id"]
    overridden = job(studio, refused).promotion
    assert overridden and overridden.override and overridden.override.reason == "A rehearsal."
    api.delete(f"/deployments/{deployment}")


def test_an_evaluation_goes_on_after_its_process_was_killed(studio: Studio, refused: str, api: httpx.Client) -> None:
    def shown(evaluation_id: str) -> dict[str, Any]:
        sleep(1)  # a key has a hundred requests a minute
        return api.get(f"/evaluations/{evaluation_id}").json()

    wanted = {"adapter_id": job(studio, refused).adapter_id, "generation_rows": 5, "max_new_tokens": 8}
    answer = api.post("/evaluations", json=wanted)
    assert answer.status_code == 201, answer.text
    evaluation_id = answer.json()["evaluation_id"]
    beat = studio.data_dir / "evaluations" / evaluation_id / HEARTBEAT
    assert eventually(lambda: beat.is_file() and beat.read_text().strip(), 90), logs(studio.data_dir)
    os.kill(int(beat.read_text()), signal.SIGKILL)
    assert eventually(lambda: shown(evaluation_id)["status"] in ("completed", "failed"), 240), shown(evaluation_id)
    done = shown(evaluation_id)
    assert done["status"] == "completed", done
    found, of_job = done["result"]["evaluation"], job(studio, refused).evaluation
    assert of_job and found["comparison"]["loss"] == of_job.comparison["loss"].model_dump()
    assert "held out" in done["result"]["notes"][0]
