"""What a job stands: every process it depends on is killed, and the loss curve shows nothing of it."""

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from benchmarks.studio import Studio, running_studio
from peft_studio.events import Status
from peft_studio.jobs import JobStatus, Phase
from tests.acceptance.conftest import eventually
from tests.acceptance.jobs import (
    STEPS,
    flow_process,
    follow,
    job,
    losses,
    part,
    run_dir,
    submit,
    trainers,
    wait_for_step,
)

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(400)]
Curve = list[tuple[float, float]]
Kill = Callable[[Studio, str], None]


@pytest.fixture(scope="module")
def undisturbed(studio: Studio) -> Curve:
    """The loss curve of the job when nothing happens to it."""
    curve = losses(follow(studio, submit(studio)))
    assert len(curve) == STEPS
    return curve


def kill_trainer(studio: Studio, job_id: str) -> None:
    for process in trainers(studio, job_id):
        process.kill()


def kill_flow(studio: Studio, job_id: str) -> None:
    flow_process(studio, job_id).kill()


def kill_worker(studio: Studio, job_id: str) -> None:
    part(studio, "infra.worker").kill()


def kill_api(studio: Studio, job_id: str) -> None:
    part(studio, "api.app").kill()


def kill_prefect(studio: Studio, job_id: str) -> None:
    part(studio, "prefect.server").kill()


def kill_database(studio: Studio, job_id: str) -> None:
    part(studio, "postgres").kill()


@pytest.mark.parametrize(
    "kills",
    [(kill_trainer, kill_flow, kill_worker), (kill_api, kill_prefect, kill_database)],
    ids=["those that run it", "those that serve it"],
)
def test_killed_processes_leave_no_mark_on_a_job(studio: Studio, undisturbed: Curve, kills: Sequence[Kill]) -> None:
    job_id = submit(studio)
    for step, kill in zip((8, 24, 40), kills, strict=True):
        wait_for_step(studio, job_id, step)
        kill(studio, job_id)
    events = follow(studio, job_id)
    assert losses(events) == undisturbed
    assert job(studio, job_id).status is JobStatus.COMPLETED
    assert isinstance(events[-1], Status) and events[-1].status is JobStatus.COMPLETED


def test_a_dead_flow_process_and_worker_are_noticed_within_a_minute(studio: Studio) -> None:
    job_id = submit(studio, max_steps=5000, num_epochs=100)
    wait_for_step(studio, job_id, 5)
    victims = [flow_process(studio, job_id), part(studio, "infra.worker")]
    for victim in victims:
        victim.kill()

    def phases() -> list[Phase | None]:
        return [event.phase for _, event in run_dir(studio, job_id).events() if isinstance(event, Status)]

    assert eventually(lambda: Phase.RECOVERING in phases(), 60)
    assert eventually(lambda: phases()[-1] is Phase.TRAINING, 180)  # the worker starts anew meanwhile
    with studio.client() as client:
        client.cancel_job(job_id)


def test_a_job_that_dies_again_and_again_fails_with_a_reason(studio: Studio) -> None:
    job_id = submit(studio, max_steps=5000, num_epochs=100)
    killed: set[int] = set()

    def kill_whatever_runs() -> bool:
        heartbeat = run_dir(studio, job_id).path / "heartbeat"
        pid = int(heartbeat.read_text() or 0) if heartbeat.exists() else 0
        if pid and pid not in killed and psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        return run_dir(studio, job_id).latest().failure is not None

    assert eventually(kill_whatever_runs, 300)
    follow(studio, job_id)
    failed = job(studio, job_id)
    assert failed.status is JobStatus.FAILED
    assert failed.error is not None and "died 4 times" in failed.error["details"]


def test_after_a_power_cut_the_history_is_there_and_the_job_goes_on(
    undisturbed: Curve, used_data_dir: Callable[[str], Path]
) -> None:
    data_dir = used_data_dir("power-cut")
    with running_studio(data_dir) as studio:
        first = submit(studio, max_steps=2)
        follow(studio, first)
        interrupted = submit(studio)
        wait_for_step(studio, interrupted, 25)
        supervisor = psutil.Process(studio.process.pid)
        for process in [supervisor, *supervisor.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):  # some die with their parents
                process.kill()
        studio.process.wait()
    with running_studio(data_dir) as studio:
        assert losses(follow(studio, interrupted)) == undisturbed
        assert job(studio, interrupted).status is JobStatus.COMPLETED
        assert job(studio, first).status is JobStatus.COMPLETED
