"""Jobs with a tracker, as the flow leaves them in their run directories, and a forwarder that has them sent."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import uuid4

from pydantic import SecretStr

from infra.credentials import Credentials, CredentialsInMemory
from infra.settings import Settings
from infra.trackers.forwarding import Forwarder
from infra.trackers.waiting import Waiting, read_tracked
from peft_studio.config import TrainingConfig
from peft_studio.events import Log, Metrics, now
from peft_studio.jobs import JobStatus, job_id_of
from peft_studio.run_dir import RunDir
from peft_studio.tracking import TrackedRun


@dataclass
class EndingsInMemory:
    """Jobs end when a test says so."""

    known: dict[str, tuple[JobStatus, datetime]] = field(default_factory=dict)

    async def of(self, job_ids: Collection[str]) -> Mapping[str, tuple[JobStatus, datetime]]:
        return {job_id: self.known[job_id] for job_id in job_ids if job_id in self.known}


@dataclass
class Desk:
    """A studio as far as trackers are concerned."""

    settings: Settings
    credentials: CredentialsInMemory = field(default_factory=CredentialsInMemory)
    endings: EndingsInMemory = field(default_factory=EndingsInMemory)

    async def connect(self, platform: str, **values: str) -> None:
        secrets = {name: SecretStr(value) for name, value in values.items()}
        await self.credentials.put(Credentials(platform=platform, verified_at=now(), values=secrets))

    def begin(self, tracker: str, **config: Any) -> RunDir:
        run = self.settings.run_dir(job_id_of(uuid4()))
        given = {"base_model": "m", "dataset_path": "s3://user:hidden@bucket/rows?signature=hidden", **config}
        run.write("config.json", TrainingConfig(experiment_tracker=tracker, **given))
        Waiting(self.settings).add(run.job_id)
        return run

    def end(self, run: RunDir, status: JobStatus = JobStatus.COMPLETED) -> None:
        self.endings.known[run.job_id] = status, now()

    def forwarder(self) -> Forwarder:
        return Forwarder(self.settings, self.credentials, self.endings, (0.05, 0.05))

    async def send(self, seconds: float = 300) -> None:
        """Send until nothing waits; another forwarder than before, as after a restart."""
        forwarder = self.forwarder()
        async with asyncio.timeout(seconds):
            while Waiting(self.settings).all():
                await forwarder.check()
                await forwarder.settle()
                await asyncio.sleep(0.1)

    async def try_once(self) -> None:
        """Have each job tried once."""
        forwarder = self.forwarder()
        await forwarder.check()
        await forwarder.settle()


def report(run: RunDir, *steps: int) -> None:
    """Have the trainer report steps; every fourth is followed by a look at the held-out rows."""
    for step in steps:
        numbers = {"step": step, "epoch": step / 10, "total_steps": 10}
        run.append(Metrics(job_id=run.job_id, metrics={**numbers, "loss": 1 / step}))
        if step % 4 == 0:
            run.append(Metrics(job_id=run.job_id, metrics={**numbers, "eval_loss": 2 / step}))


def said(run: RunDir, level: str) -> list[str]:
    return [event.message for _, event in run.events() if isinstance(event, Log) and event.level == level]


def tracked(run: RunDir) -> TrackedRun:
    found = read_tracked(run)
    assert found
    return found
