"""Experiments over HTTP: every job is one, and several can be compared."""

from pathlib import Path
from typing import Any

import pytest

from infra.settings import Settings
from peft_studio.config import TrainingConfig
from peft_studio.events import Metrics
from peft_studio.experiments import experiment_id_of
from peft_studio.jobs import Job, JobStatus
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.studio_in_memory import CONFIG, JobsInMemory

NOBODY = "exp_" + "0" * 32


def ended(jobs: JobsInMemory, config: dict[str, Any] | None = None, **metrics: float) -> Job:
    settings = TrainingConfig.model_validate(CONFIG | (config or {}))
    return jobs.add(config=settings, status=JobStatus.COMPLETED, metrics=metrics, cost=2.45, duration_seconds=60.0)


def ids(*some: Job) -> list[str]:
    return [experiment_id_of(job.job_id) for job in some]


def listed(client: Client, query: str = "") -> list[str]:
    return [found["id"] for found in client.get("/api/v1/experiments" + query).json()["experiments"]]


def compared(client: Client, *experiments: str, **choices: Any) -> Any:
    return client.post("/api/v1/experiments/compare", json={"experiment_ids": list(experiments), **choices})


def test_an_experiment_is_its_job_as_the_tracker_records_it(client: Client, jobs: JobsInMemory) -> None:
    job = ended(jobs, {"project_name": "mine", "rank": 4}, final_loss=0.2, best_loss=0.1, total_steps=10)
    experiment = client.get(f"/api/v1/experiments/{ids(job)[0]}").json()
    assert experiment == {
        "id": ids(job)[0],
        "tracker": "local",
        "project": "mine",
        "name": "mine lora r4",
        "status": "completed",
        "metrics": {"final_loss": 0.2, "best_loss": 0.1, "accuracy": None, "total_steps": 10},
        "config": client.get(f"/api/v1/jobs/{job.job_id}").json()["config"],
        "created_at": "2024-01-15T10:30:00Z",
        "job_id": job.job_id,
        "cost": 2.45,
        "duration_seconds": 60.0,
    }
    listing = {"experiments": [experiment], "next_cursor": None, "unavailable_trackers": []}
    assert client.get("/api/v1/experiments").json() == listing


def test_a_job_that_waits_is_an_experiment_already(client: Client, jobs: JobsInMemory) -> None:
    experiment = client.get(f"/api/v1/experiments/{ids(jobs.add())[0]}").json()
    assert (experiment["status"], experiment["project"], experiment["cost"]) == ("pending", "default", 0.0)
    assert experiment["duration_seconds"] is None


def test_experiments_are_listed_newest_first_by_project_state_and_tracker(client: Client, jobs: JobsInMemory) -> None:
    first, second = ended(jobs, {"project_name": "mine"}), ended(jobs)
    third = jobs.add(config=TrainingConfig.model_validate(CONFIG | {"project_name": "mine"}))
    assert listed(client) == listed(client, "?tracker=local") == ids(third, second, first)
    assert listed(client, "?project=mine") == ids(third, first)
    assert listed(client, "?project=mine&status=completed") == ids(first)
    assert listed(client, "?project=default") == ids(second)
    assert listed(client, "?project=nobody%27s") == []


def test_pages_follow_each_other_whatever_is_added_in_between(client: Client, jobs: JobsInMemory) -> None:
    some = [ended(jobs) for _ in range(5)]
    seen: list[str] = []
    cursor = ""
    while True:
        page = client.get(f"/api/v1/experiments?limit=2{cursor}").json()
        seen += [experiment["id"] for experiment in page["experiments"]]
        jobs.add()
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == ids(*reversed(some))


@pytest.mark.parametrize("cursor", ["x", "job_" + "0" * 32, NOBODY])
def test_a_cursor_that_was_never_given_is_refused(client: Client, cursor: str) -> None:
    answer = client.get(f"/api/v1/experiments?cursor={cursor}")
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["field"] == "cursor"


def test_a_tracker_that_is_not_connected_says_so(client: Client) -> None:
    answer = client.get("/api/v1/experiments?tracker=wandb")
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "PLATFORM_NOT_CONNECTED"
    assert answer.json()["error"]["details"] == {"platform": "wandb", "field": "tracker"}


def test_an_unknown_tracker_is_not_found(client: Client) -> None:
    answer = client.get("/api/v1/experiments?tracker=magic")
    assert answer.status_code == 404
    assert answer.json()["error"]["details"] == {"field": "tracker", "tracker": "magic"}


@pytest.mark.parametrize("name", [NOBODY, "exp_", "exp_abc", "job_" + "0" * 32, "exp_" + "F" * 32])
def test_an_unknown_experiment_is_not_found(client: Client, name: str) -> None:
    answer = client.get(f"/api/v1/experiments/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "NOT_FOUND"
    assert answer.json()["error"]["details"] == {"experiment_id": name}


def test_experiments_are_compared_in_the_order_in_which_they_were_named(client: Client, jobs: JobsInMemory) -> None:
    bad, good = ended(jobs, accuracy=0.5, final_loss=0.1), ended(jobs, {"rank": 4}, accuracy=0.89, final_loss=0.2)
    comparison = compared(client, *ids(good, bad)).json()["comparison"]
    configs = [client.get(f"/api/v1/jobs/{job.job_id}").json()["config"] for job in (good, bad)]
    assert comparison == {
        "experiment_ids": ids(good, bad),
        "metrics": {
            "loss": [0.2, 0.1],
            "accuracy": [0.89, 0.5],
            "final_loss": [0.2, 0.1],
            "best_loss": [None, None],
        },
        "configs": configs,
        "config_differences": {"rank": [4, 8]},
        "metric": "accuracy",
        "direction": "maximize",
        "best_performer": ids(good)[0],
        "cost_analysis": {"total_costs": [2.45, 2.45], "cost_per_accuracy_point": [0.0275, 0.049]},
        "curves": {},
    }


def test_counts_stay_whole_numbers_beside_each_other(client: Client, jobs: JobsInMemory) -> None:
    some = ended(jobs, total_steps=10.0), ended(jobs)
    assert str(compared(client, *ids(*some)).json()["comparison"]["metrics"]["total_steps"]) == "[10, None]"


def test_a_comparison_shows_curves_by_step_also_of_a_job_that_took_over_anothers_adapter(
    connect: Connect, jobs: JobsInMemory, tmp_path: Path
) -> None:
    trained, waiting = ended(jobs), jobs.add()
    reused = jobs.add(status=JobStatus.COMPLETED, reused_from=trained.job_id)
    run = Settings(data_dir=tmp_path).run_dir(trained.job_id)
    for step in (1, 2):
        run.append(Metrics(job_id=trained.job_id, metrics={"step": step, "loss": 1 / step, "grad_norm": step}))
    client, some = connect(data_dir=tmp_path), ids(trained, waiting, reused)
    shown = compared(client, *some).json()["comparison"]["curves"]
    assert shown == {"loss": {"steps": [1, 2], "values": [[1.0, 0.5], [None, None], [1.0, 0.5]]}}
    assert list(compared(client, *some, curves=["grad_norm"]).json()["comparison"]["curves"]) == ["grad_norm"]
    assert compared(client, *some, curves=[]).json()["comparison"]["curves"] == {}


def test_jobs_that_have_no_metrics_yet_can_be_compared_and_none_is_the_best(client: Client, jobs: JobsInMemory) -> None:
    comparison = compared(client, *ids(jobs.add(), jobs.add())).json()["comparison"]
    assert comparison["best_performer"] is None
    assert comparison["cost_analysis"] == {"total_costs": [0.0, 0.0], "cost_per_accuracy_point": [None, None]}


def test_a_metric_is_chosen_and_one_that_none_has_is_refused(client: Client, jobs: JobsInMemory) -> None:
    some = ended(jobs, best_loss=0.2, accuracy=0.9), ended(jobs, best_loss=0.1, accuracy=0.8)
    comparison = compared(client, *ids(*some), metric="best_loss", direction="minimize").json()["comparison"]
    assert (comparison["best_performer"], comparison["direction"]) == (ids(some[1])[0], "minimize")
    answer = compared(client, *ids(*some), metric="bleu")
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, "metric")


def test_an_unknown_experiment_among_others_is_named_with_its_place(client: Client, jobs: JobsInMemory) -> None:
    answer = compared(client, *ids(ended(jobs)), NOBODY, "exp_too")
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == f"There is no experiment {NOBODY!r} (number 2 of experiment_ids)."
    assert answer.json()["error"]["details"] == {"field": "experiment_ids.1", "experiment_id": NOBODY}


def test_the_same_experiment_twice_is_refused_with_its_place(client: Client, jobs: JobsInMemory) -> None:
    some = ids(ended(jobs), ended(jobs))
    answer = compared(client, *some, some[0])
    assert answer.status_code == 400
    details = {"field": "experiment_ids.2", "issue": "Must not be the same as experiment_ids.0"}
    assert answer.json()["error"]["details"] == details


def test_a_hundred_experiments_are_compared_and_no_more(client: Client, jobs: JobsInMemory) -> None:
    some = ids(*(ended(jobs, final_loss=1 / n) for n in range(1, 102)))
    assert compared(client, *some[:100]).json()["comparison"]["best_performer"] == some[99]
    assert compared(client, *some).json()["error"]["details"]["field"] == "experiment_ids"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "experiment_ids"),
        ({"experiment_ids": []}, "experiment_ids"),
        ({"experiment_ids": [NOBODY]}, "experiment_ids"),
        ({"experiment_ids": "exp_1"}, "experiment_ids"),
        ({"experiment_ids": [NOBODY, 1]}, "experiment_ids.1"),
        ({"experiment_ids": [NOBODY, ""]}, "experiment_ids.1"),
        ({"experiment_ids": [NOBODY, "exp_1"], "direction": "up"}, "direction"),
        ({"experiment_ids": [NOBODY, "exp_1"], "curves": "loss"}, "curves"),
        ({"experiment_ids": [NOBODY, "exp_1"], "surprise": 1}, "surprise"),
    ],
)
def test_a_comparison_of_something_else_is_refused_with_the_field(client: Client, body: Any, field: str) -> None:
    answer = client.post("/api/v1/experiments/compare", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["field"] == field


def test_a_job_that_was_started_past_the_api_with_nonsense_is_listed_and_compared(
    client: Client, jobs: JobsInMemory
) -> None:
    nonsense: dict[str, Any] = {"base_model": 7, "algorithm": "magic", "rank": "many", "project_name": ["x"]}
    failed = jobs.add(config=TrainingConfig.model_construct(None, dataset_path="", **nonsense), status=JobStatus.FAILED)
    experiment = client.get("/api/v1/experiments").json()["experiments"][0]
    assert (experiment["id"], experiment["name"]) == (ids(failed)[0], "['x'] magic rmany")
    assert {name: experiment["config"][name] for name in nonsense} == nonsense
    differences = compared(client, *ids(failed, jobs.add())).json()["comparison"]["config_differences"]
    assert differences["rank"] == ["many", 8]


def test_a_key_that_may_only_read_may_compare(connect: Connect, jobs: JobsInMemory) -> None:
    assert compared(connect("reads"), *ids(ended(jobs), ended(jobs))).status_code == 200


@pytest.mark.parametrize(("kind", "begin"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_a_comparison_says_where_its_curves_are_to_be_seen(
    connect: Connect, jobs: JobsInMemory, tmp_path: Path, kind: str, begin: bytes
) -> None:
    some = ended(jobs), ended(jobs)
    run = Settings(data_dir=tmp_path).run_dir(some[0].job_id)
    for step in (1, 2):
        run.append(Metrics(job_id=some[0].job_id, metrics={"step": step, "loss": 1 / step}))
    client = connect(data_dir=tmp_path)
    picture = client.get(compared(client, *ids(*some)).json()["pictures"][kind])
    assert (picture.status_code, picture.content[: len(begin)]) == (200, begin)
    assert picture.headers["content-type"].startswith("image/")


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("", 400, "ids"),
        ("ids=,", 400, "ids"),
        (f"ids={NOBODY}", 404, "experiment_ids.0"),
        (f"ids={NOBODY}&format=gif", 400, "format"),
    ],
)
def test_a_picture_of_nothing_is_refused(client: Client, query: str, status: int, field: str) -> None:
    answer = client.get(f"/api/v1/experiments/compare?{query}")
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (status, field)
