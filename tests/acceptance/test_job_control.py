"""Pausing, resuming, trying again and checkpoints on request, on a real studio: the loss curve shows nothing of it."""

import pytest
from httpx import Client

from benchmarks.studio import Studio
from peft_studio.events import Status
from peft_studio.jobs import Job, JobStatus, Phase
from tests.acceptance.conftest import eventually
from tests.acceptance.jobs import (
    STEPS,
    flow_process,
    follow,
    job,
    losses,
    run_dir,
    submit,
    trainers,
    wait_for_step,
)

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
LONG = {"max_steps": 5000, "num_epochs": 100}
Curve = list[tuple[float, float]]


@pytest.fixture(scope="module")
def undisturbed(studio: Studio) -> Curve:
    """The loss curve of the job when nothing happens to it."""
    curve = losses(follow(studio, submit(studio)))
    assert len(curve) == STEPS
    return curve


def ask(studio: Studio, job_id: str, what: str) -> tuple[int, dict[str, object]]:
    """Do something to a job; return the status and the body of the answer."""
    with Client(headers={"Authorization": f"Bearer {studio.key}"}, timeout=40) as client:
        answer = client.post(f"{studio.url}/api/v1/jobs/{job_id}/{what}")
    return answer.status_code, answer.json()


def phase_after(studio: Studio, job_id: str, what: str) -> object:
    """Do something to a job that must succeed; return the phase it is in then."""
    status, body = ask(studio, job_id, what)
    assert status == 200, body
    return body["phase"]


def phases(studio: Studio, job_id: str) -> list[Phase | None]:
    return [event.phase for _, event in run_dir(studio, job_id).events() if isinstance(event, Status)]


def completed(studio: Studio, job_id: str) -> Job:
    ended = job(studio, job_id)
    assert ended.status is JobStatus.COMPLETED, ended.error
    return ended


def test_a_paused_job_has_no_trainer_and_goes_on_as_if_it_never_was_paused(studio: Studio, undisturbed: Curve) -> None:
    job_id = submit(studio)
    for step in (7, 25):
        wait_for_step(studio, job_id, step)
        assert phase_after(studio, job_id, "pause") == "paused"
        assert eventually(lambda: not trainers(studio, job_id), 5)
        paused = job(studio, job_id)
        assert (paused.status, paused.phase) == (JobStatus.PENDING, Phase.PAUSED)
        assert ask(studio, job_id, "pause")[0] == 409
        other = submit(studio, max_steps=1)  # the machine is free for others
        follow(studio, other)
        assert job(studio, job_id).phase is Phase.PAUSED
        assert phase_after(studio, job_id, "resume") == "queued"
        assert ask(studio, job_id, "resume")[0] == 409
    assert losses(follow(studio, job_id)) == undisturbed
    assert completed(studio, job_id).termination_reason == "completed"
    for what in ("pause", "resume", "retry", "checkpoint"):
        assert ask(studio, job_id, what)[0] == 409


def test_a_job_that_waits_is_held_back_without_having_begun(studio: Studio) -> None:
    first, waiting = submit(studio, **LONG), submit(studio, max_steps=1)
    assert phase_after(studio, waiting, "pause") == "paused"
    with studio.client() as client:
        client.cancel_job(first)
    follow(studio, submit(studio, max_steps=1))
    assert phases(studio, waiting) == [Phase.PAUSED]
    assert phase_after(studio, waiting, "resume") == "queued"
    follow(studio, waiting)
    completed(studio, waiting)


def test_a_job_can_be_paused_at_any_moment_of_its_beginning(studio: Studio) -> None:
    job_id = submit(studio, max_steps=20)
    for _ in range(4):
        assert phase_after(studio, job_id, "pause") == "paused"
        assert phase_after(studio, job_id, "resume") == "queued"
    follow(studio, job_id)
    completed(studio, job_id)


def test_a_job_whose_process_dies_while_it_is_being_paused_ends_up_paused(studio: Studio, undisturbed: Curve) -> None:
    job_id = submit(studio)
    wait_for_step(studio, job_id, 12)
    victim = flow_process(studio, job_id)
    victim.suspend()  # it does not come to notice the pause
    status, body = ask(studio, job_id, "pause")
    assert (status, body["phase"]) == (200, "pausing")
    victim.kill()
    assert eventually(lambda: job(studio, job_id).phase is Phase.PAUSED, 60)
    assert eventually(lambda: not trainers(studio, job_id), 15)
    assert phase_after(studio, job_id, "resume") == "queued"
    assert losses(follow(studio, job_id)) == undisturbed


def test_a_cancelled_job_goes_on_from_its_checkpoint_when_tried_again(studio: Studio, undisturbed: Curve) -> None:
    job_id = submit(studio)
    wait_for_step(studio, job_id, 12)
    with studio.client() as client:
        assert client.cancel_job(job_id).status == "cancelled"
    assert job(studio, job_id).termination_reason == "cancelled"
    assert phase_after(studio, job_id, "retry") == "queued"
    assert ask(studio, job_id, "retry")[0] == 409
    assert losses(follow(studio, job_id)) == undisturbed
    summary = run_dir(studio, job_id).read_summary()
    assert summary and len(summary.resumed_at) == 1 and summary.resumed_at[0] >= 10
    assert completed(studio, job_id).adapter_id


def test_a_paused_job_can_be_cancelled_and_then_tried_again(studio: Studio, undisturbed: Curve) -> None:
    job_id = submit(studio)
    wait_for_step(studio, job_id, 12)
    assert phase_after(studio, job_id, "pause") == "paused"
    with studio.client() as client:
        assert client.cancel_job(job_id).status == "cancelled"
    assert ask(studio, job_id, "resume")[0] == 409
    assert phase_after(studio, job_id, "retry") == "queued"
    assert losses(follow(studio, job_id)) == undisturbed


def test_a_checkpoint_is_saved_on_request_and_changes_nothing(studio: Studio, undisturbed: Curve) -> None:
    job_id = submit(studio, checkpoint_steps=1000)
    wait_for_step(studio, job_id, 12)
    status, body = ask(studio, job_id, "checkpoint")
    assert status == 200, body
    saved = body["checkpoint"]
    assert isinstance(saved, dict)
    assert 12 <= saved["step"] <= STEPS
    run = run_dir(studio, job_id)
    assert (run.checkpoints / f"step-{saved['step']}" / "adapter_model.safetensors").is_file()
    assert losses(follow(studio, job_id)) == undisturbed
    assert ask(studio, job_id, "checkpoint")[0] == 409


def test_a_job_that_failed_for_a_passing_reason_completes_when_tried_again(studio: Studio) -> None:
    rows = studio.data_dir / "rows.jsonl"
    content = '{"prompt": "a", "completion": "b"}\n' * 40
    rows.write_text(content)
    first, job_id = submit(studio, **LONG), submit(studio, dataset_path=str(rows), max_steps=2)
    rows.unlink()
    with studio.client() as client:
        client.cancel_job(first)
    follow(studio, job_id)
    failed = job(studio, job_id)
    assert (failed.status, failed.termination_reason) == (JobStatus.FAILED, "invalid_config")
    rows.write_text(content)
    assert phase_after(studio, job_id, "retry") == "queued"
    follow(studio, job_id)
    assert completed(studio, job_id).error is None
