"""Sweeps over HTTP: checked before anything is started, and told with all their points."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from api.dependencies import Coordination
from infra.hyperparameters.halving import Verdicts
from peft_studio.config import TrainingConfig
from peft_studio.jobs import JobStatus
from tests.integration.api.coordination_in_memory import SweepRunsInMemory
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.studio_in_memory import JobsInMemory
from tests.measured_machine import measured
from tests.model_folders import write_model

PATH = "/api/v1/sweeps"


@pytest.fixture
def studio(connect: Connect, tmp_path: Path) -> Client:
    measured(tmp_path / "data")
    return connect("writes")


@pytest.fixture
def sweep(tmp_path: Path) -> dict[str, Any]:
    """A sweep of four points over a model and rows that are there."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "{n}", "completion": "{n}"}}\n' for n in range(20)))
    config = {
        "base_model": str(write_model(tmp_path / "model")),
        "model_source": "local",
        "dataset_path": str(rows),
        "max_length": 32,
    }
    return {"config": config, "grid": {"rank": [2, 4], "learning_rate": [1e-4, 1e-3]}}


def fields(answer: Any) -> list[str]:
    assert answer.status_code == 400, answer.text
    details = answer.json()["error"]["details"]
    return [issue["field"] for issue in details.get("errors", [details])]


def test_a_sweep_has_its_points_from_the_beginning(studio: Client, sweep: dict[str, Any]) -> None:
    answer = studio.post(PATH, json=sweep)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert [point["changes"] for point in made["points"]] == [
        {"rank": rank, "learning_rate": rate} for rank in (2, 4) for rate in (1e-4, 1e-3)
    ]
    assert {point["status"] for point in made["points"]} == {"waiting"}
    assert (made["metric"], made["direction"], made["parallel"], made["duplicates"]) == ("eval_loss", "minimize", 1, 0)
    assert studio.get(f"{PATH}/{made['sweep_id']}").json() == made
    assert [one["sweep_id"] for one in studio.get(PATH).json()["sweeps"]] == [made["sweep_id"]]


def test_duplicates_are_dropped_and_counted(studio: Client, sweep: dict[str, Any]) -> None:
    del sweep["grid"]
    made = studio.post(PATH, json=sweep | {"points": [{"rank": 8}, {}, {"rank": 4}]}).json()
    assert (made["duplicates"], len(made["points"])) == (1, 2)


def test_the_same_request_with_its_key_starts_one_sweep(studio: Client, sweep: dict[str, Any]) -> None:
    first, second = (studio.post(PATH, json=sweep, headers={"Idempotency-Key": "once"}) for _ in range(2))
    assert first.json() == second.json()
    assert len(studio.get(PATH).json()["sweeps"]) == 1


def test_what_is_wrong_is_said_with_the_point_and_its_field(studio: Client, sweep: dict[str, Any]) -> None:
    wrong = sweep | {"grid": {"rank": [2, 4, 8, 5000]}}
    assert fields(studio.post(PATH, json=wrong)) == ["points[3].rank"]
    # What only planning finds out: the model has no such layers.
    assert fields(studio.post(PATH, json=sweep | {"grid": {"target_modules": [["q_proj"], ["nonsense"]]}})) == [
        "points[1].target_modules"
    ]
    assert fields(studio.post(PATH, json=sweep | {"points": [{}]})) == ["points"]
    assert fields(studio.post(PATH, json=sweep | {"config": sweep["config"] | {"rank": 0}})) == ["rank"]
    bad = {"samples": 3, "parameters": {"rank": {"distribution": "integer", "low": 5, "high": 5}}}
    assert fields(studio.post(PATH, json={"config": sweep["config"], "random": bad}))[0].endswith("high")
    assert studio.get(PATH).json()["sweeps"] == []


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"metric": "eval_loss", "config": {"validation_split": 0}}, "metric"),
        ({"metric": "accuracy", "early_stopping": {"rungs": [5]}}, "metric"),
        ({"early_stopping": {"rungs": [5, 5]}}, "early_stopping.rungs"),
        ({"early_stopping": {"rungs": [5], "reduction_factor": 1}}, "early_stopping.reduction_factor"),
        ({"parallel": 0}, "parallel"),
        ({"budget": 0}, "budget"),
    ],
)
def test_aims_that_cannot_be_reached_are_refused(
    studio: Client, sweep: dict[str, Any], given: dict[str, Any], field: str
) -> None:
    body = sweep | given | {"config": sweep["config"] | given.get("config", {})}
    assert fields(studio.post(PATH, json=body)) == [field]


def test_too_many_points_are_refused(connect: Connect, sweep: dict[str, Any], tmp_path: Path) -> None:
    measured(tmp_path / "data")
    assert fields(connect("writes", sweep_points=3).post(PATH, json=sweep)) == ["grid"]


def test_a_sweep_shows_how_its_points_fare(
    studio: Client, sweep: dict[str, Any], jobs: JobsInMemory, coordination: Coordination
) -> None:
    sweep_id = studio.post(PATH, json=sweep | {"early_stopping": {"rungs": [5]}}).json()["sweep_id"]
    assert studio.get(f"{PATH}/{sweep_id}/comparison").status_code == 409
    config = TrainingConfig.model_validate(sweep["config"])
    ended = [
        jobs.add(config=config, status=JobStatus.COMPLETED, metrics={"eval_loss": 2.0}, cost=0.0, progress=1.0),
        jobs.add(config=config, status=JobStatus.CANCELLED, metrics={"eval_loss": 1.0}, cost=0.0),
        jobs.add(config=config, status=JobStatus.COMPLETED, metrics={"eval_loss": 1.5}, cost=0.0, progress=1.0),
    ]
    runs = cast(SweepRunsInMemory, coordination.sweeps)
    runs.points[sweep_id] = dict(enumerate(ended))
    verdicts = Verdicts(rungs={5: {0: 2.5, 1: 3.0}}, stopped={1: "Worse."}, refused={3: "No money."})
    runs.kept[sweep_id] = replace(runs.kept[sweep_id], status=JobStatus.RUNNING, verdicts=verdicts)

    told = studio.get(f"{PATH}/{sweep_id}").json()
    points = told["points"]
    assert [point["status"] for point in points] == ["completed", "stopped", "completed", "refused"]
    assert [point.get("reason") for point in points] == [None, "Worse.", None, "No money."]
    assert points[1]["rungs"] == {"5": 3.0}
    assert (told["best"], told["cost"]) == (2, 0.0)  # the one that was stopped is not in question
    compared = studio.get(f"{PATH}/{sweep_id}/comparison").json()["comparison"]
    assert compared["metric"] == "eval_loss" and compared["metrics"]["eval_loss"] == [2.0, 1.0, 1.5]
    assert compared["experiment_ids"] == [point["experiment_id"] for point in points[:3]]


def test_a_sweep_is_cancelled_once(studio: Client, sweep: dict[str, Any]) -> None:
    sweep_id = studio.post(PATH, json=sweep).json()["sweep_id"]
    assert studio.post(f"{PATH}/{sweep_id}/cancel").json() == {
        "success": True,
        "sweep_id": sweep_id,
        "status": "cancelled",
    }
    assert studio.post(f"{PATH}/{sweep_id}/cancel").status_code == 409
    assert {point["status"] for point in studio.get(f"{PATH}/{sweep_id}").json()["points"]} == {"cancelled"}
    for path in (f"{PATH}/sweep_nonsense", f"{PATH}/sweep_{'0' * 32}", f"{PATH}/sweep_nonsense/comparison"):
        assert studio.get(path).status_code == 404
