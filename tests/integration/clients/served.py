"""
The real API on a loopback port, with a studio in memory behind it.

    python -m tests.integration.clients.served     # tells what there is, and serves until its input ends
"""

import base64
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.app import create_app
from api.dependencies import RunsOfAdapters
from infra.adapters.runs import RunsInMemory
from infra.credentials import CredentialsInMemory
from infra.deploying.runs import DeployRunsInMemory
from infra.exports.runs import ExportRunsInMemory
from infra.serving.records import DeploymentsInMemory
from infra.settings import Settings
from peft_studio.events import Log, Metrics, Status
from peft_studio.jobs import Job, JobStatus, Phase
from tests.adapter_files import weights
from tests.integration.api.studio_in_memory import BudgetsInMemory, JobsInMemory, KeysInMemory, MachinesInMemory
from tests.loopback import on_loopback
from tests.measured_machine import measured


@dataclass
class Served:
    """An API that answers at ``url``, and the jobs and evaluations behind it."""

    url: str
    jobs: JobsInMemory
    data_dir: Path
    evaluations: RunsInMemory
    machines: MachinesInMemory


@contextmanager
def served(**settings: Any) -> Iterator[Served]:
    """Serve the API for as long as the block lasts."""
    jobs, evaluations, machines = JobsInMemory(), RunsInMemory(), MachinesInMemory()
    with tempfile.TemporaryDirectory() as folder:
        measured(Path(folder))
        given = Settings.model_validate({"requests_per_minute": 10_000, "data_dir": folder, **settings})
        app = create_app(
            jobs,
            KeysInMemory(),
            given,
            DeploymentsInMemory(),
            jobs,
            CredentialsInMemory(),
            BudgetsInMemory(),
            machines,
            runs=RunsOfAdapters(ExportRunsInMemory(), DeployRunsInMemory(), evaluations, jobs),
        )
        with on_loopback(app) as url:
            yield Served(url, jobs, given.data_dir, evaluations, machines)


def eventful(jobs: JobsInMemory) -> Job:
    """Add a job that has trained ten steps and completed."""
    job = jobs.add(status=JobStatus.RUNNING)
    jobs.say(Status(job_id=job.job_id, status=JobStatus.RUNNING, phase=Phase.TRAINING))
    for step in range(1, 11):
        jobs.say(Metrics(job_id=job.job_id, metrics={"step": step, "epoch": 0.1 * step, "loss": 1 / step}))
    jobs.say(Log(job_id=job.job_id, message="Zoë says: done, 完成"))
    jobs.say(Status(job_id=job.job_id, status=JobStatus.COMPLETED, phase=Phase.DONE))
    return jobs.jobs[job.job_id]


if __name__ == "__main__":
    with served() as studio:
        told = {
            "url": studio.url,
            "eventful": eventful(studio.jobs).job_id,
            "pending": studio.jobs.add().job_id,
            "adapter": base64.b64encode(weights()).decode(),  # a file that is one
        }
        print(json.dumps(told), flush=True)
        sys.stdin.read()
