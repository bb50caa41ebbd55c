"""What the acceptance tests ask a studio for, in one line each."""

from typing import Any

import httpx
import psutil

from benchmarks.studio import Studio, demo_job
from infra.jobs.heartbeats import HEARTBEAT
from peft_studio.evaluation.comparison import EvaluationConfig
from peft_studio.events import Event, Metrics
from peft_studio.jobs import Job
from peft_studio.run_dir import RunDir
from tests.acceptance.conftest import eventually

STEPS = 60
# To measure an adapter on many rows, and have both models answer them, takes longer than the training does here.
MEASURED_BRIEFLY: dict[str, Any] = {
    "validation_split": 0.02,
    "evaluation": EvaluationConfig(generation_rows=2, max_new_tokens=8).model_dump(mode="json"),
}


def short_job(**changes: Any) -> dict[str, Any]:
    """The demonstration's job, a fraction of it, really trained however often it was trained before."""
    fraction = {
        **MEASURED_BRIEFLY,
        "max_steps": STEPS,
        "batch_size": 4,
        "checkpoint_steps": 10,
        "force": True,
        "test_prompt": None,
    }
    return demo_job(**fraction | changes)


def submit(studio: Studio, **changes: Any) -> str:
    with studio.client() as client:
        return client.create_job(short_job(**changes)).job_id


def follow(studio: Studio, job_id: str) -> list[Event]:
    """Every message of the job's WebSocket, to its end."""
    with studio.client() as client:
        return list(client.follow(job_id))


def job(studio: Studio, job_id: str) -> Job:
    with studio.client() as client:
        return client.get_job(job_id)


def run_dir(studio: Studio, job_id: str) -> RunDir:
    return RunDir(studio.data_dir / "runs" / job_id)


def losses(events: list[Event]) -> list[tuple[float, float]]:
    """The loss curve: (step, loss) in the order of arrival."""
    curve = [event.metrics for event in events if isinstance(event, Metrics) and "loss" in event.metrics]
    return [(point["step"], point["loss"]) for point in curve]


def wait_for_step(studio: Studio, job_id: str, step: int, seconds: float = 120) -> None:
    """Wait until the trainer has reported a step."""
    run = run_dir(studio, job_id)
    assert eventually(lambda: run.latest().metrics.get("step", 0) >= step, seconds), f"never got to step {step}"


def trainers(studio: Studio, job_id: str) -> list[psutil.Process]:
    """The processes that train a job: not the one that only stands in for them."""
    return processes(str(run_dir(studio, job_id).path), without="infra.warm")


def flow_process(studio: Studio, job_id: str) -> psutil.Process:
    """The process that runs the job's flow."""
    return psutil.Process(int((run_dir(studio, job_id).path / HEARTBEAT).read_text()))


def part(studio: Studio, words: str) -> psutil.Process:
    """One of the studio's own processes, by its command line."""
    children = psutil.Process(studio.process.pid).children()
    return next(process for process in processes(words) if process in children)


def processes(words: str, without: str = "\0") -> list[psutil.Process]:
    """Every living process whose command line has some words, and not others."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if process.info["status"] != psutil.STATUS_ZOMBIE and words in line and without not in line:
            found.append(process)
    return found


def is_ready(studio: Studio) -> bool:
    """Whether the whole studio says that it can take requests and jobs."""
    try:
        return httpx.get(f"{studio.url}/readyz").status_code == 200
    except httpx.HTTPError:
        return False
