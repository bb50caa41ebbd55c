"""For each example of the API's document, a studio in which its request has the answer that was promised."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from peft_studio.config import TrainingConfig
from peft_studio.events import Log
from peft_studio.experiments import experiment_id_of
from peft_studio.jobs import Artifact, Job, JobStatus, Phase
from peft_studio.machine import Gpu
from tests.contract.promises import PROMISES
from tests.integration.api.machines import made, measured
from tests.integration.api.studio_in_memory import START, JobsInMemory

REQUEST: dict[str, Any] = next(promise for promise in PROMISES if promise.title == "Create Training Job").body["config"]
CONFIG = TrainingConfig.model_validate(REQUEST)
Names = dict[str, str]


@dataclass(frozen=True)
class Backstage:
    """What stands behind the API: jobs, and a data directory."""

    jobs: JobsInMemory
    data_dir: Path


def running(jobs: JobsInMemory) -> Job:
    job = jobs.add(
        config=CONFIG,
        metrics={"loss": 0.523, "learning_rate": 0.0002, "epoch": 1.5},
        status=JobStatus.RUNNING,
        phase=Phase.TRAINING,
        progress=0.45,
        started_at=START,
    )
    for line in ("Starting training...", "Epoch 1/3, Step 10/1000, Loss: 0.523"):
        jobs.say(Log(job_id=job.job_id, message=line))
    return job


def completed(jobs: JobsInMemory, cost: float = 2.45, **metrics: float) -> Job:
    return jobs.add(
        config=CONFIG,
        metrics={"final_loss": 0.234, "best_loss": 0.221, "accuracy": 0.89, "total_steps": 1000, **metrics},
        status=JobStatus.COMPLETED,
        phase=Phase.DONE,
        progress=1.0,
        started_at=START,
        completed_at=START + timedelta(seconds=2640),
        duration_seconds=2640.0,
        cost=cost,
        artifact=Artifact(path="/path/to/adapter.safetensors", size_bytes=16777216, hash="sha256:abc123"),
    )


def _nothing(_: Backstage) -> Names:
    return {}


def _some_running_jobs(studio: Backstage) -> Names:
    running(studio.jobs)
    return {"status": "running", "provider": "runpod", "limit": "5"}


def _a_completed_job(studio: Backstage) -> Names:
    return {"job_id": completed(studio.jobs).job_id}


def _a_running_job(studio: Backstage) -> Names:
    return {"job_id": running(studio.jobs).job_id, "lines": "2"}


def _a_machine(studio: Backstage) -> Names:
    measured(studio.data_dir, Gpu(name="RTX 4090", vram_gb=24))
    return {"provider": "local", "resource_id": "local", "available": "true"}


def _an_adapter(studio: Backstage) -> Names:
    return {"job_id": made(studio.jobs, studio.data_dir, **REQUEST).job_id, "limit": "5"}


def _some_experiments(studio: Backstage) -> Names:
    completed(studio.jobs)
    return {"tracker": "local", "project": REQUEST["project_name"]}


def _two_experiments(studio: Backstage) -> Names:
    first, second = completed(studio.jobs), completed(studio.jobs, cost=3.20, final_loss=0.256, accuracy=0.87)
    return {"exp_ghi789": experiment_id_of(first.job_id), "exp_jkl012": experiment_id_of(second.job_id)}


# By the example's heading. A scene returns what stands in the request in place of the document's names.
SCENES: dict[str, Callable[[Backstage], Names]] = {
    "Create Training Job": _nothing,
    "List Jobs": _some_running_jobs,
    "Get Job Details": _a_completed_job,
    "Cancel Job": _a_running_job,
    "Get Job Logs": _a_running_job,
    "List Resources": _a_machine,
    "Get Resource Pricing": _a_machine,
    "List Adapters": _an_adapter,
    "List Experiments": _some_experiments,
    "Compare Experiments": _two_experiments,
}
