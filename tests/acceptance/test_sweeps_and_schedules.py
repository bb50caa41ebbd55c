"""A sweep on a real studio, whose process is killed; and a run of a schedule."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.studio import Studio
from infra.embedded.studio import RunningStudio
from infra.settings import SCHEDULED
from peft_studio.schedules import ScheduledRun
from peft_studio.sweeps import PointStatus, Sweep
from tests.acceptance.conftest import eventually
from tests.acceptance.jobs import short_job

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
TINY: dict[str, Any] = {"max_steps": 8, "max_length": 64, "eval_steps": 4}


def sweep(studio: Studio, sweep_id: str) -> Sweep:
    with studio.client() as client:
        return client.get_sweep(sweep_id)


def start(studio: Studio, schedule_id: str) -> None:
    """Have a schedule run now, as somebody does it in Prefect's UI."""
    about = RunningStudio.model_validate_json((studio.data_dir / "studio.json").read_bytes())
    user, _, password = Path(about.prefect_auth_file).read_text().partition(":")
    with httpx.Client(base_url=about.prefect_api_url, auth=(user, password)) as prefect:
        deployment = prefect.get(f"/deployments/name/{SCHEDULED}").raise_for_status().json()["id"]
        found = prefect.get(f"/deployments/{deployment}/schedules").raise_for_status().json()
        parameters = next(one["parameters"] for one in found if one["slug"] == schedule_id.replace("_", "-"))
        wanted = {"parameters": parameters}
        prefect.post(f"/deployments/{deployment}/create_flow_run", json=wanted).raise_for_status()


def test_a_sweep_whose_process_is_killed_has_one_job_for_each_point_and_a_best_one(studio: Studio) -> None:
    body = {"config": short_job(**TINY), "grid": {"learning_rate": [1e-5, 5e-3]}, "parallel": 2}
    with studio.client() as client:
        made = client.create_sweep(body)
    beat = studio.data_dir / "coordinating" / made.sweep_id.removeprefix("sweep_") / "heartbeat"
    assert eventually(lambda: beat.exists() and beat.read_text().endswith("\n"), 60)
    os.kill(int(beat.read_text()), signal.SIGKILL)
    assert eventually(lambda: sweep(studio, made.sweep_id).status.is_final, 200)
    ended = sweep(studio, made.sweep_id)
    assert [point.status for point in ended.points] == [PointStatus.COMPLETED, PointStatus.COMPLETED], ended
    assert ended.best == 1
    with studio.client() as client:
        jobs = [one for one in client.list_jobs(limit=100).jobs if one.sweep_id == made.sweep_id]
        compared = client.compare_sweep(made.sweep_id)
    assert sorted(one.job_id for one in jobs) == sorted(point.job_id or "" for point in ended.points)
    assert compared.best_performer == ended.points[1].experiment_id and compared.metric == "eval_loss"


def test_a_run_of_a_schedule_is_a_job_with_its_id(studio: Studio) -> None:
    with studio.client() as client:
        made = client.create_schedule({"config": short_job(**TINY), "cron": "0 3 1 1 *", "timezone": "Europe/Berlin"})

        def runs() -> Sequence[ScheduledRun]:
            return client.get_schedule(made.schedule_id).last_runs

        client.pause_schedule(made.schedule_id)
        start(studio, made.schedule_id)
        assert eventually(lambda: [run.status for run in runs()] == ["skipped"], 100)
        client.resume_schedule(made.schedule_id)
        start(studio, made.schedule_id)
        assert eventually(lambda: runs() and runs()[0].job_id, 100)
        assert client.get_job(runs()[0].job_id or "").schedule_id == made.schedule_id
        client.delete_schedule(made.schedule_id)
        assert made.schedule_id not in [one.schedule_id for one in client.list_schedules()]
