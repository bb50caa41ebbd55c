"""Real jobs as experiments, side by side."""

from typing import Any

import httpx
import pytest

from benchmarks.studio import Studio
from tests.acceptance.jobs import STEPS, follow, job, submit

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
PROJECT = "side-by-side"


def ask(studio: Studio, method: str, path: str, **arguments: Any) -> Any:
    headers = {"Authorization": f"Bearer {studio.key}"}
    answer = httpx.request(method, f"{studio.url}/api/v1{path}", headers=headers, timeout=30, **arguments)
    return answer.raise_for_status().json()


def test_jobs_are_experiments_of_their_project_and_the_longer_trained_is_the_best(studio: Studio) -> None:
    of_project = {"project_name": PROJECT, "validation_split": 0.1}
    long, short = submit(studio, **of_project), submit(studio, **of_project, max_steps=2)
    for job_id in (long, short):
        follow(studio, job_id)

    first = ask(studio, "GET", f"/experiments?tracker=local&project={PROJECT}&limit=1")
    second = ask(studio, "GET", f"/experiments?project={PROJECT}&limit=1&cursor={first['next_cursor']}")
    listed = [*first["experiments"], *second["experiments"]]
    assert [experiment["job_id"] for experiment in listed] == [short, long]
    assert second["next_cursor"] is None

    ids = [experiment["id"] for experiment in listed]
    comparison = ask(studio, "POST", "/experiments/compare", json={"experiment_ids": ids})["comparison"]
    assert comparison["best_performer"] == ids[1]
    assert comparison["config_differences"] == {"max_steps": [2, STEPS]}
    assert comparison["cost_analysis"] == {"total_costs": [0, 0], "cost_per_accuracy_point": [0, 0]}
    assert comparison["curves"]["loss"]["steps"] == list(range(1, STEPS + 1))
    short_curve, long_curve = comparison["curves"]["loss"]["values"]
    assert [value is not None for value in short_curve] == [True, True] + [False] * (STEPS - 2)
    assert None not in long_curve

    evaluation = job(studio, long).evaluation
    assert evaluation and evaluation.base and evaluation.adapter
    assert comparison["metrics"]["accuracy"][1] == evaluation.adapter.accuracy
    assert (evaluation.base.accuracy or 1) < comparison["metrics"]["accuracy"][0] < (evaluation.adapter.accuracy or 0)
