"""``peft-studio evaluations`` against the real API on loopback, in this process."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from prefect.client.schemas.objects import StateType
from typer.testing import CliRunner, Result

from peft_studio.cli.evaluations import app
from peft_studio.client import Client
from peft_studio.evaluation.comparison import Measure, ModelComparison
from peft_studio.evaluations import EvaluationResult, EvaluationStep, Judged, flow_run_id_of_evaluation
from peft_studio.events import now
from peft_studio.jobs import Evaluation
from tests.adapter_files import weights
from tests.integration.clients.served import Served
from tests.model_folders import write_model

Run = Callable[..., Result]
LOSS = ModelComparison(base=2.5, adapter=1.25, difference=-1.25, low=-1.5, high=-1, rows=9, differing=7, better="lower")
JUDGED = Judged(model="judge", rows=9, unreadable=0, adapter_wins=6, base_wins=0, ties=3, win_rate=0.833)


@pytest.fixture
def run(api: Served) -> Run:
    known = {"PEFT_STUDIO_URL": api.url, "PEFT_STUDIO_API_KEY": "writes", "COLUMNS": "200"}
    return lambda *words: CliRunner().invoke(app, words, env=known, catch_exceptions=False)


@pytest.fixture
def adapter_id(api: Served, tmp_path: Path) -> str:
    (tmp_path / "adapter.safetensors").write_bytes(weights())
    with Client(api.url, "writes") as client:
        described = {"base_model": str(write_model(tmp_path / "base"))}
        return client.upload_adapter(tmp_path / "adapter.safetensors", described).adapter_id


@pytest.fixture
def evaluation_id(run: Run, adapter_id: str, tmp_path: Path) -> str:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"q{n}", "completion": "a"}) + "\n" for n in range(9)))
    words = "--measure loss --measure chrf --set rows=5 --judge m --judge-url http://j/v1"
    made = run("create", adapter_id, "--dataset", str(rows), *words.split())
    assert made.exit_code == 0, made.output
    return made.stdout.strip()


def end(api: Served, evaluation_id: str) -> None:
    """Have an evaluation end well, as its flow would."""
    run_id = flow_run_id_of_evaluation(evaluation_id)
    result = EvaluationResult(
        evaluation=Evaluation(held_out_rows=9, comparison={"loss": LOSS}), notes=["[All] rows."], judge=JUDGED
    )
    step = EvaluationStep(step="done", progress=1, result=result).model_dump_json()
    api.evaluations.runs[run_id] = replace(
        api.evaluations.runs[run_id], state_type=StateType.COMPLETED, result=step, end_time=now()
    )


def test_what_is_asked_for_reaches_the_studio(run: Run, evaluation_id: str, adapter_id: str) -> None:
    shown = json.loads(run("show", evaluation_id, "--json").stdout)
    config = shown["config"]
    assert (shown["adapter_id"], shown["status"], config["rows"]) == (adapter_id, "pending", 5)
    assert config["measures"] == [Measure.LOSS, Measure.CHRF]
    assert config["judge"] == {"model": "m", "url": "http://j/v1"}
    assert "queued" in run("show", evaluation_id).stdout


def test_evaluations_are_listed_by_adapter_and_state(run: Run, evaluation_id: str, adapter_id: str) -> None:
    lines = run("list", "--adapter", adapter_id, "--status", "pending").stdout.splitlines()
    assert lines[1].split()[:4] == [evaluation_id, adapter_id, "pending", "queued"]
    assert evaluation_id not in run("list", "--status", "completed").stdout


def test_the_figures_of_both_models_are_a_table_and_the_rest_is_said_aside(
    run: Run, api: Served, evaluation_id: str
) -> None:
    end(api, evaluation_id)
    shown = run("show", evaluation_id)
    assert shown.stdout.splitlines()[1].split() == ["loss", "2.5", "1.25", "-1.25", "-1.5", "-1", "9", "7"]
    assert "judge prefers the adapter's answers in 0.833 of 9 rows" in shown.stderr
    assert "[All] rows." in shown.stderr


def test_an_evaluation_is_cancelled_then_deleted(run: Run, evaluation_id: str) -> None:
    assert run("cancel", evaluation_id).stdout.split() == [evaluation_id, "cancelled"]
    assert run("delete", evaluation_id).stdout == f"Deleted {evaluation_id}.\n"
    assert evaluation_id not in run("list", "--limit", "100").stdout
