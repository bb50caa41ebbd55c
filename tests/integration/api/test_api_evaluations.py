"""Evaluations over HTTP: asked for, refused with the field, looked at, stopped and deleted; runs in memory."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import StateType

from infra.adapters.runs import RunsInMemory
from peft_studio.evaluations import EvaluationResult, EvaluationStep, EvaluationTask, flow_run_id_of_evaluation
from peft_studio.events import now
from peft_studio.jobs import Evaluation
from tests.adapter_files import weights
from tests.integration.api.fixtures import Client
from tests.integration.api.studio_in_memory import JobsInMemory
from tests.integration.api.test_api_promotion import gated
from tests.model_folders import write_model

KEY = {"Idempotency-Key": "once"}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_model(tmp_path / "base")


@pytest.fixture
def adapter_id(client: Client, base: Path) -> str:
    described = json.dumps({"base_model": str(base)}).encode()
    answer = client.post("/api/v1/adapters/upload", files={"file": weights(), "metadata": described})
    return answer.json()["adapter_id"]


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"q{n}", "completion": "a"}) + "\n" for n in range(9)))
    return str(path)


def ask(client: Client, adapter_id: str, key: dict[str, str] | None = None, **body: Any) -> Any:
    return client.post("/api/v1/evaluations", json={"adapter_id": adapter_id, **body}, headers=key or {})


def field(answer: Any, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    return answer.json()["error"]["details"]["field"]


def task_of(runs: RunsInMemory, answer: Any) -> EvaluationTask:
    assert answer.status_code == 201, answer.text
    run = runs.runs[flow_run_id_of_evaluation(answer.json()["evaluation_id"])]
    return EvaluationTask.model_validate(run.parameters["task"])


def test_an_uploaded_adapter_is_evaluated_on_the_rows_that_are_named(
    client: Client, adapter_id: str, rows: str, base: Path, evaluation_runs: RunsInMemory
) -> None:
    answer = ask(client, adapter_id, dataset=rows, generation_rows=5, judge={"model": "m", "url": "http://judge/v1"})
    task = task_of(evaluation_runs, answer)
    assert (answer.json()["status"], answer.json()["step"]) == ("pending", "queued")
    assert (task.config.base_model, task.config.dataset_path, task.held_out) == (str(base), rows, False)
    assert task.wanted.judge and task.wanted.judge.model == "m"
    assert Path(task.adapter).is_dir()


def test_rows_of_a_data_set_of_the_studio_are_named_by_its_id(
    client: Client, adapter_id: str, rows: str, evaluation_runs: RunsInMemory
) -> None:
    sent = client.post("/api/v1/datasets?name=rows.jsonl", content=Path(rows).read_bytes())
    task = task_of(evaluation_runs, ask(client, adapter_id, dataset=sent.json()["dataset_id"]))
    assert Path(task.config.dataset_path).read_bytes() == Path(rows).read_bytes()


def test_answers_are_written_only_where_somebody_looks_at_them(
    client: Client, adapter_id: str, rows: str, evaluation_runs: RunsInMemory
) -> None:
    assert task_of(evaluation_runs, ask(client, adapter_id, dataset=rows)).wanted.generation_rows == 32
    losses = ask(client, adapter_id, dataset=rows, measures=["loss"])
    assert task_of(evaluation_runs, losses).wanted.generation_rows == 0


@pytest.mark.parametrize(
    ("body", "at_fault"),
    [
        ({}, "dataset"),
        ({"dataset": "/nowhere.jsonl"}, "dataset"),
        ({"dataset": "dataset_" + "0" * 32}, "dataset"),
        ({"measures": []}, "measures"),
        ({"measures": ["beauty"]}, "measures.0"),
        ({"measures": ["chrf"], "generation_rows": 0}, "generation_rows"),
        ({"judge": {"model": "m"}}, "judge.url"),
        ({"judge": {"model": "m", "url": "ftp://x"}}, "judge.url"),
        ({"judge": {"model": "m", "url": "http://user@host/v1"}}, "judge.url"),
        ({"lm_eval": {"tasks": []}}, "lm_eval.tasks"),
        ({"rows": 0}, "rows"),
        ({"bootstrap": {"confidence": 1}}, "bootstrap.confidence"),
        ({"speed": 1}, "speed"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_with_the_field(
    client: Client, adapter_id: str, rows: str, body: dict[str, Any], at_fault: str
) -> None:
    named = {} if at_fault == "dataset" else {"dataset": rows}
    assert field(ask(client, adapter_id, **named | body)) == at_fault


def test_an_empty_data_set_is_refused(client: Client, adapter_id: str, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    assert field(ask(client, adapter_id, dataset=str(tmp_path / "empty.jsonl"))) == "dataset"


def test_an_adapter_that_is_not_there_or_whose_base_model_is_gone_is_refused(
    client: Client, adapter_id: str, rows: str, base: Path
) -> None:
    assert ask(client, "adapter_" + "0" * 32, dataset=rows).status_code == 404
    base.rename(base.with_name("elsewhere"))
    assert field(ask(client, adapter_id, dataset=rows)) == "adapter_id"


def test_an_adapter_that_writes_no_text_is_asked_for_none(
    client: Client, jobs: JobsInMemory, tmp_path: Path, rows: str, base: Path
) -> None:
    job = gated(jobs, tmp_path, None, base_model=str(base), model_source="local", objective="embedding")
    adapter_id = job.replace("job_", "adapter_")
    assert field(ask(client, adapter_id, dataset=rows, measures=["rougeL"])) == "measures"
    assert field(ask(client, adapter_id, dataset=rows, judge={"model": "m", "url": "http://judge/v1"})) == "judge"


def test_the_same_request_with_the_same_key_is_the_same_evaluation(client: Client, adapter_id: str, rows: str) -> None:
    first = ask(client, adapter_id, KEY, dataset=rows).json()
    assert ask(client, adapter_id, KEY, dataset=rows).json() == first
    assert ask(client, adapter_id, KEY, dataset=rows, rows=5).status_code == 409


def test_what_came_of_an_evaluation_or_why_it_failed_is_shown(
    client: Client, adapter_id: str, rows: str, evaluation_runs: RunsInMemory
) -> None:
    shown = ask(client, adapter_id, dataset=rows).json()
    address, run_id = f"/api/v1/evaluations/{shown['evaluation_id']}", flow_run_id_of_evaluation(shown["evaluation_id"])
    run = evaluation_runs.runs[run_id]
    at_it = EvaluationStep(step="adapter", progress=0.5).model_dump_json()
    evaluation_runs.runs[run_id] = replace(run, state_type=StateType.RUNNING, result=at_it)
    assert (client.get(address).json()["step"], client.get(address).json()["progress"]) == ("adapter", 0.5)
    result = EvaluationResult(evaluation=Evaluation(held_out_rows=9), notes=["All rows."])
    done = EvaluationStep(step="done", progress=1, result=result).model_dump_json()
    evaluation_runs.runs[run_id] = replace(run, state_type=StateType.COMPLETED, result=done, end_time=now())
    assert client.get(address).json()["result"]["notes"] == ["All rows."]
    failed = EvaluationStep(step="done", progress=1, error="No rows.").model_dump_json()
    evaluation_runs.runs[run_id] = replace(run, state_type=StateType.FAILED, result=failed, end_time=now())
    assert (client.get(address).json()["status"], client.get(address).json()["error"]) == ("failed", "No rows.")


def test_evaluations_are_listed_newest_first_page_by_page(client: Client, adapter_id: str, rows: str) -> None:
    ids = [ask(client, adapter_id, dataset=rows).json()["evaluation_id"] for _ in range(3)]
    first = client.get("/api/v1/evaluations?limit=2").json()
    rest = client.get(f"/api/v1/evaluations?limit=2&cursor={first['next_cursor']}").json()
    found = [one["evaluation_id"] for one in first["evaluations"] + rest["evaluations"]]
    assert (found, rest["next_cursor"]) == (ids[::-1], None)
    assert client.get("/api/v1/evaluations?adapter_id=other").json()["evaluations"] == []
    assert client.get("/api/v1/evaluations?status=running").json()["evaluations"] == []
    assert field(client.get("/api/v1/evaluations?cursor=nonsense")) == "cursor"
    assert client.get("/api/v1/evaluations/evaluation_" + "0" * 32).status_code == 404


def test_an_evaluation_is_cancelled_once(client: Client, adapter_id: str, rows: str) -> None:
    address = f"/api/v1/evaluations/{ask(client, adapter_id, dataset=rows).json()['evaluation_id']}/cancel"
    assert client.post(address).json()["status"] == "cancelled"
    assert client.post(address).status_code == 409


def test_an_evaluation_is_deleted_once_it_has_ended(client: Client, adapter_id: str, rows: str, tmp_path: Path) -> None:
    evaluation_id = ask(client, adapter_id, dataset=rows).json()["evaluation_id"]
    address, folder = f"/api/v1/evaluations/{evaluation_id}", tmp_path / "data" / "evaluations" / evaluation_id
    folder.mkdir(parents=True)
    (folder / "heartbeat").touch()
    refused = client.delete(address)
    assert (refused.status_code, refused.json()["error"]["details"]["status"]) == (409, "pending")
    client.post(f"{address}/cancel")
    assert client.delete(address).json() == {"success": True, "evaluation_id": evaluation_id}
    assert not folder.exists()
    assert client.get(address).status_code == client.delete(address).status_code == 404
    assert client.get(f"/api/v1/adapters/{adapter_id}").status_code == 200


def test_an_evaluation_that_cannot_be_read_is_shown_as_far_as_it_can_and_hides_no_other(
    client: Client, adapter_id: str, rows: str, evaluation_runs: RunsInMemory
) -> None:
    first, second = (ask(client, adapter_id, dataset=rows).json()["evaluation_id"] for _ in range(2))
    run_id = flow_run_id_of_evaluation(first)
    run = replace(evaluation_runs.runs[run_id], state_type=StateType.COMPLETED, result='{"step": 3}', end_time=now())
    evaluation_runs.runs[run_id] = run
    newest, oldest = client.get("/api/v1/evaluations").json()["evaluations"]
    assert (newest["evaluation_id"], newest["error"]) == (second, None)
    assert (oldest["evaluation_id"], oldest["status"], oldest["result"]) == (first, "completed", None)
    assert "cannot be read" in oldest["error"]
