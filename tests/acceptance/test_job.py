"""A job from POST to an evaluated adapter, on a real studio."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from benchmarks.studio import ROOT, Studio
from infra.jobs.reads import RESULT
from peft_studio.errors import Conflict, InvalidConfig, StudioError
from peft_studio.events import Status
from peft_studio.jobs import Job, JobStatus, Phase
from peft_studio.vllm_rules import broken_rules
from tests.acceptance.conftest import eventually
from tests.acceptance.jobs import STEPS, follow, job, losses, run_dir, short_job, submit, trainers, wait_for_step

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
# With a seed that no other test trains with: the first of these jobs really trains.
REPEATED = {"test_prompt": "My pod does not start.", "force": False, "seed": 1}


@pytest.fixture(scope="module")
def finished(studio: Studio) -> Job:
    job_id = submit(studio, **REPEATED)
    follow(studio, job_id)
    return job(studio, job_id)


def test_a_job_ends_with_an_adapter_that_is_better_than_its_base(finished: Job) -> None:
    assert finished.status is JobStatus.COMPLETED
    assert finished.progress == 1.0
    assert finished.evaluation and finished.evaluation.base and finished.evaluation.adapter
    assert finished.evaluation.adapter.perplexity < 0.7 * finished.evaluation.base.perplexity
    assert finished.evaluation.answer and finished.evaluation.answer.base != finished.evaluation.answer.adapter
    assert finished.metrics["total_steps"] == STEPS
    assert finished.cost == 0.0


def test_the_adapter_loads_in_stock_peft(finished: Job) -> None:
    assert finished.artifact is not None
    weights = Path(finished.artifact.path)
    assert weights.stat().st_size == finished.artifact.size_bytes
    model = AutoModelForCausalLM.from_pretrained(ROOT / "demo" / "model")
    assert PeftModel.from_pretrained(model, str(weights.parent)).peft_config["default"].r == 8


def test_the_websocket_tells_every_phase_and_every_step_in_order(studio: Studio, finished: Job) -> None:
    events = follow(studio, finished.job_id)
    phases = [event.phase for event in events if isinstance(event, Status)]
    steps = ["queued", "validating", "provisioning", "training", "releasing", "uploading", "evaluating", "done"]
    assert phases == [Phase(step) for step in steps]
    assert [step for step, _ in losses(events)] == list(range(1, STEPS + 1))


def test_the_same_job_submitted_again_trains_nothing_and_says_so(studio: Studio, finished: Job) -> None:
    again = submit(studio, **REPEATED)
    assert losses(follow(studio, again)) == []
    reused = job(studio, again)
    assert reused.reused_from == finished.job_id
    assert reused.artifact and finished.artifact and reused.artifact.hash == finished.artifact.hash
    with studio.client() as client:
        assert any(finished.job_id in line.message for line in client.get_logs(again))


def test_a_job_ends_with_what_its_target_takes(studio: Studio) -> None:
    job_id = submit(studio, max_steps=2, algorithm="vera", serve_target="vllm")
    follow(studio, job_id)
    made = job(studio, job_id).conversion
    assert made and (made.target, made.format, made.status) == ("vllm", "lora", JobStatus.COMPLETED)
    with studio.client() as client:
        export = client.get_export(str(made.export_id))
        assert client.list_exports(adapter_id=export.adapter_id).exports == [export]
    assert export.path and broken_rules(Path(export.path)) == []


def test_the_same_idempotency_key_gives_the_same_job_and_refuses_another_one(studio: Studio) -> None:
    body = short_job(max_steps=1)
    with studio.client() as client:
        first, second = (client.create_job(body, idempotency_key="once") for _ in range(2))
        assert first.job_id == second.job_id
        with pytest.raises(Conflict):
            client.create_job(body | {"rank": 4}, idempotency_key="once")
        follow(studio, first.job_id)


def test_cancelling_ends_the_trainer_and_keeps_the_last_checkpoint(studio: Studio) -> None:
    job_id = submit(studio, max_steps=5000, num_epochs=100)
    wait_for_step(studio, job_id, 12)
    with studio.client() as client:
        cancelled = client.cancel_job(job_id)
    assert (cancelled.success, cancelled.job_id, cancelled.status) == (True, job_id, JobStatus.CANCELLED)
    assert eventually(lambda: not trainers(studio, job_id), 10)
    assert job(studio, job_id).status is JobStatus.CANCELLED
    assert list(run_dir(studio, job_id).checkpoints.glob("step-*/manifest.json"))
    last = follow(studio, job_id)[-1]
    assert isinstance(last, Status) and last.status is JobStatus.CANCELLED
    with studio.client() as client, pytest.raises(Conflict):
        client.cancel_job(job_id)


def test_a_job_that_waits_for_another_can_be_cancelled_and_never_runs(studio: Studio) -> None:
    first, waiting = submit(studio, max_steps=3), submit(studio, max_steps=3, rank=2)
    with studio.client() as client:
        assert client.cancel_job(waiting).status is JobStatus.CANCELLED
    follow(studio, first)
    assert losses(follow(studio, waiting)) == []
    assert job(studio, waiting).status is JobStatus.CANCELLED


def prefect(studio: Studio, *words: str) -> str:
    """Run Prefect's own command line against the studio, as a user does after ``eval "$(peft-studio env)"``."""
    command = [sys.executable, "-m", "peft_studio.cli", "env", "--data-dir", str(studio.data_dir)]
    exports = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    settings = dict(line.removeprefix("export ").split("=", 1) for line in exports.splitlines())
    environment = os.environ | {name: value.strip("'") for name, value in settings.items()}
    command = [sys.executable, "-m", "prefect", *words]
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=200, cwd=ROOT
    ).stdout


def newest_job(studio: Studio) -> Job:
    with studio.client() as client:
        return client.list_jobs(limit=1).jobs[0]


def test_prefects_own_command_line_starts_a_job_too(studio: Studio) -> None:
    parameter = "config=" + json.dumps(short_job(max_steps=2, project_name="by-hand"))
    prefect(studio, "deployment", "run", "finetune/default", "--param", parameter, "--watch")
    newest = newest_job(studio)
    assert (newest.config.project_name, newest.status) == ("by-hand", "completed")


def test_the_scheduled_pipeline_is_there_switched_off_and_runs(studio: Studio) -> None:
    assert "0 3 * * *" in prefect(studio, "deployment", "schedule", "ls", "finetune/nightly-demo")
    prefect(studio, "deployment", "run", "finetune/nightly-demo", "--watch")
    newest = newest_job(studio)
    assert (newest.config.project_name, newest.status) == ("nightly-demo", "completed")


def test_what_ends_forgotten_machines_is_planned_by_itself(studio: Studio) -> None:
    def planned() -> bool:
        return json.loads(prefect(studio, "flow-run", "ls", "--flow-name", "sweep", "--output", "json")) != []

    assert eventually(planned, 90)


def test_the_prefect_ui_has_something_to_watch(studio: Studio, finished: Job) -> None:
    artifacts = json.loads(prefect(studio, "artifact", "ls", "--limit", "200", "--output", "json"))
    key = finished.job_id.replace("_", "-")
    shown = {artifact["key"]: artifact["type"] for artifact in artifacts if artifact["key"].startswith(key)}
    kinds = {"progress": "progress", "loss": "image", "summary": "markdown", "adapter": "markdown"}
    assert shown == {f"{key}-{what}": kind for what, kind in kinds.items()} | {f"{key}-result": RESULT}


BAD = "\n".join(json.dumps({"prompt": "q", "completion": "a" if row != 37 else ""}) for row in range(1, 41))


@pytest.mark.parametrize(
    ("changes", "file", "field", "row"),
    [
        ({"surprise": 1}, None, "surprise", None),
        ({"rank": 0}, None, "rank", None),
        ({"learning_rate": 5.0}, None, "learning_rate", None),
        ({"algorithm": "magic"}, None, "algorithm", None),
        ({"dataset_path": "/nowhere/rows.jsonl"}, None, "dataset_path", None),
        ({}, b"", "dataset_path", None),
        ({}, BAD.encode(), "dataset_path", 37),
        ({}, b"\x89PNG\r\n\x1a\n0000", "dataset_path", None),
        ({}, b'{"text": "fine"}\n{"text": "\xff\xfe"}\n', "dataset_path", 2),
        ({"base_model": "/nowhere/model"}, None, "base_model", None),
        ({"target_modules": ["no_such_proj"]}, None, "target_modules", None),
        ({"output_dir": "../elsewhere"}, None, "output_dir", None),
        ({"output_dir": "/tmp/elsewhere"}, None, "output_dir", None),
    ],
)
def test_bad_input_is_refused_before_anything_starts(
    studio: Studio, tmp_path: Path, changes: dict[str, object], file: bytes | None, field: str, row: int | None
) -> None:
    if file is not None:
        (tmp_path / "rows.jsonl").write_bytes(file)
        changes = {"dataset_path": str(tmp_path / "rows.jsonl")}
    with studio.client() as client:
        before = client.list_jobs().total
        with pytest.raises(StudioError) as refused:
            client.create_job(short_job(**changes))
        assert client.list_jobs().total == before
    assert isinstance(refused.value, InvalidConfig)
    assert refused.value.details["field"] == field
    assert refused.value.details.get("row") == row
