"""Schedules over HTTP."""

from pathlib import Path
from typing import Any, cast

import pytest

from api.dependencies import Coordination
from peft_studio.schedules import RunStatus, ScheduledRun
from tests.integration.api.coordination_in_memory import SchedulesInMemory
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.studio_in_memory import START
from tests.measured_machine import measured
from tests.model_folders import write_model

PATH = "/api/v1/schedules"
WRITES, RULES = "000000000002", "000000000003"


@pytest.fixture
def studio(connect: Connect, tmp_path: Path) -> Client:
    measured(tmp_path / "data")
    return connect("writes")


@pytest.fixture
def nightly(tmp_path: Path) -> dict[str, Any]:
    """A schedule of a job that could be done."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "{n}", "completion": "{n}"}}\n' for n in range(20)))
    model = str(write_model(tmp_path / "model"))
    config = {"base_model": model, "model_source": "local", "dataset_path": str(rows), "max_length": 32}
    return {"name": "nightly", "config": config, "cron": "0 3 * * *", "timezone": "Europe/Berlin"}


def test_a_schedule_is_made_shown_changed_paused_resumed_and_deleted(studio: Client, nightly: dict[str, Any]) -> None:
    answer = studio.post(PATH, json=nightly)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["active"], made["overlap"], made["key_id"], made["last_runs"]) == (True, "skip", WRITES, [])
    assert len(made["next_runs"]) == 5 and all("T03:00:00+0" in time for time in made["next_runs"])
    own = f"{PATH}/{made['schedule_id']}"
    assert studio.get(own).json() == made
    assert [one["schedule_id"] for one in studio.get(PATH).json()["schedules"]] == [made["schedule_id"]]

    changed = studio.patch(own, json={"cron": "30 2 * * 1", "overlap": "queue"}).json()
    assert (changed["cron"], changed["overlap"], changed["timezone"]) == ("30 2 * * 1", "queue", "Europe/Berlin")
    paused = studio.post(f"{own}/pause").json()
    assert (paused["active"], paused["next_runs"]) == (False, [])
    assert studio.post(f"{own}/resume").json()["active"] is True
    assert studio.delete(own).json() == {"success": True, "schedule_id": made["schedule_id"]}
    assert [studio.request(method, own).status_code for method in ("GET", "DELETE")] == [404, 404]


def test_whoever_resumes_or_changes_a_schedule_pays_and_who_pauses_it_does_not(
    studio: Client, nightly: dict[str, Any]
) -> None:
    own = f"{PATH}/{studio.post(PATH, json=nightly).json()['schedule_id']}"
    admin = {"Authorization": "Bearer rules"}
    assert studio.post(f"{own}/pause", headers=admin).json()["key_id"] == WRITES
    assert studio.post(f"{own}/resume", headers=admin).json()["key_id"] == RULES
    assert studio.patch(own, json={"name": "mine"}).json()["key_id"] == WRITES


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"cron": "0 25 * * *"}, "cron"),
        ({"cron": "* * * * *"}, "cron"),
        ({"timezone": "Europe/Nowhere"}, "timezone"),
        ({"overlap": "both"}, "overlap"),
        ({"config": {"base_model": "/nowhere", "model_source": "local", "dataset_path": "/nowhere"}}, "base_model"),
        ({"every": 5}, "every"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_by_field(
    studio: Client, nightly: dict[str, Any], given: dict[str, Any], field: str
) -> None:
    own = f"{PATH}/{studio.post(PATH, json=nightly).json()['schedule_id']}"
    for answer in (studio.post(PATH, json=nightly | given), studio.patch(own, json=given)):
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["details"]["field"] == field
    assert len(studio.get(PATH).json()["schedules"]) == 1


def test_what_became_of_its_runs_is_shown(studio: Client, nightly: dict[str, Any], coordination: Coordination) -> None:
    schedule_id = studio.post(PATH, json=nightly).json()["schedule_id"]
    runs = [
        ScheduledRun(scheduled_at=START, status=RunStatus.SKIPPED, reason="The job before it has not ended."),
        ScheduledRun(scheduled_at=START, status=RunStatus.STARTED, job_id="job_" + "0" * 32),
    ]
    cast(SchedulesInMemory, coordination.schedules).past[schedule_id] = runs
    told = studio.get(f"{PATH}/{schedule_id}").json()["last_runs"]
    assert [(run["status"], run.get("job_id"), run.get("reason")) for run in told] == [
        ("skipped", None, "The job before it has not ended."),
        ("started", "job_" + "0" * 32, None),
    ]
