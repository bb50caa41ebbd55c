"""Experiments of connected trackers over HTTP, beside the studio's own; the trackers lie on loopback."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.simulators.accounts import GOOD
from infra.simulators.comet import SimulatedComet, SimulatedExperiment, create_comet
from infra.simulators.exchange import Reply
from infra.simulators.loopback import served
from infra.simulators.wandb import KEY, SimulatedRun, SimulatedWandb, create_wandb
from peft_studio.config import TrainingConfig
from peft_studio.jobs import JobStatus
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.studio_in_memory import CONFIG, JobsInMemory

FOREIGN = "wandb:alice:triage:abc"


@pytest.fixture
def wandb() -> SimulatedWandb:
    run = SimulatedRun("alice", "triage", "abc", "by hand", "2025-01-01T00:00:00", '{"rank": {"value": 4}}')
    run.history = ['{"_step": 1, "loss": 2.0}', '{"_step": 2, "loss": 1.0}']
    run.summary, run.state = {"_step": 2, "loss": 1.0, "accuracy": 0.5}, "crashed"
    return SimulatedWandb(runs={"abc": run})


@pytest.fixture
def comet() -> SimulatedComet:
    place = {"workspaceName": "alice", "projectName": "triage"}
    one = SimulatedExperiment("k1", place, "other", begun=1_800_000_000_000, running=False)
    one.metrics = [{"metricName": "loss", "metricValue": 0.5, "step": 1}]
    one.parameters = {"rank": "16"}
    return SimulatedComet(experiments={"k1": one})


@pytest.fixture
def client(connect: Connect, wandb: SimulatedWandb, comet: SimulatedComet) -> Iterator[Client]:
    with served(create_wandb(wandb)) as at_wandb, served(create_comet(comet)) as at_comet:
        opened = connect(platform_urls={"wandb": at_wandb, "comet": at_comet}, tracker_seconds=5)
        for name, key in (("wandb", KEY), ("comet", GOOD)):
            answer = opened.post(f"/api/v1/platforms/{name}/connect", json={"credentials": {"api_key": key}})
            assert answer.status_code == 200, answer.text
        yield opened


def listed(client: Client, query: str = "") -> Any:
    answer = client.get(f"/api/v1/experiments{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(answer: Any) -> list[str]:
    return [one["id"] for one in answer["experiments"]]


def test_runs_of_trackers_are_listed_beside_jobs(client: Client, jobs: JobsInMemory) -> None:
    config = CONFIG | {"experiment_tracker": "wandb", "project_name": "triage"}
    ours = jobs.add(config=TrainingConfig.model_validate(config))
    plain = jobs.add()
    of = {job.job_id: "exp_" + job.job_id[4:] for job in (ours, plain)}
    assert ids(listed(client)) == ["comet:k1", FOREIGN, of[plain.job_id], of[ours.job_id]]
    assert ids(listed(client, "?tracker=local")) == [of[plain.job_id], of[ours.job_id]]
    assert ids(listed(client, "?tracker=wandb")) == [FOREIGN, of[ours.job_id]]
    assert ids(listed(client, "?project=triage")) == ["comet:k1", FOREIGN, of[ours.job_id]]
    assert ids(listed(client, "?status=failed")) == [FOREIGN]
    shown = client.get(f"/api/v1/experiments/{FOREIGN}").json()
    assert (shown["tracker"], shown["name"], shown["status"], shown["job_id"]) == ("wandb", "by hand", "failed", None)
    assert (shown["config"], shown["metrics"]["accuracy"]) == ({"rank": 4}, 0.5)
    assert shown["url"].endswith("/alice/triage/runs/abc")


def test_pages_go_through_jobs_and_runs_alike(client: Client, jobs: JobsInMemory) -> None:
    for _ in range(3):
        jobs.add()
    seen: list[str] = []
    cursor = ""
    while True:
        page = listed(client, f"?limit=2{cursor}")
        seen += ids(page)
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert len(seen) == len(set(seen)) == 5
    assert seen[:2] == ["comet:k1", FOREIGN]


@pytest.mark.parametrize("trouble", [Reply({}, 500), Reply({}, 401), Reply(b"<html>"), Reply([1]), Reply({}, 429)])
def test_a_tracker_that_fails_keeps_no_other_from_answering(
    client: Client, wandb: SimulatedWandb, trouble: Reply
) -> None:
    wandb.trouble.reply = trouble
    answer = listed(client)
    assert ids(answer) == ["comet:k1"]
    assert [one["tracker"] for one in answer["unavailable_trackers"]] == ["wandb"]
    assert client.get(f"/api/v1/experiments/{FOREIGN}").status_code in (400, 503)


def test_runs_of_different_trackers_are_compared(client: Client, jobs: JobsInMemory, tmp_path: Path) -> None:
    job = jobs.add(status=JobStatus.COMPLETED, metrics={"final_loss": 0.75}, cost=1.0)
    some = [FOREIGN, "comet:k1", "exp_" + job.job_id[4:]]
    answer = client.post("/api/v1/experiments/compare", json={"experiment_ids": some})
    comparison = answer.json()["comparison"]
    assert comparison["metrics"]["loss"] == [1.0, 0.5, 0.75]
    assert (comparison["metric"], comparison["best_performer"]) == ("loss", "comet:k1")
    assert comparison["config_differences"]["rank"] == [4, 16, 8]
    assert comparison["curves"]["loss"] == {"steps": [1, 2], "values": [[2.0, 1.0], [0.5, None], [None, None]]}
    assert comparison["cost_analysis"]["total_costs"] == [None, None, 1.0]
    assert client.get(answer.json()["pictures"]["svg"]).status_code == 200


@pytest.mark.parametrize("name", ["wandb:alice:triage:none", "wandb:x", "mars:1", "comet:none", ":"])
def test_a_run_that_no_tracker_has_is_not_found(client: Client, name: str) -> None:
    answer = client.get(f"/api/v1/experiments/{name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND")


def test_a_tracker_that_is_not_connected_has_no_runs(client: Client) -> None:
    answer = client.get("/api/v1/experiments/mlflow:1")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "PLATFORM_NOT_CONNECTED")
