"""Experiments: every job is one, recorded by the studio's own tracker, which is always on."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from infra.adapter_records import Page
from infra.curves import read_curves
from infra.platforms import usable
from infra.platforms.connections import Platforms
from infra.settings import Settings
from peft_studio.errors import InvalidConfig, JobNotFound, NotFound
from peft_studio.experiments import (
    Comparison,
    Direction,
    Experiment,
    compare,
    experiment_of,
    job_id_of_experiment,
    no_experiment,
)
from peft_studio.jobs import Job, JobStatus
from peft_studio.platforms import Feature

CURVES = ("loss", "eval_loss")  # what a comparison shows by step, unless other metrics are asked for
_AT_ONCE = 8  # jobs that are read at the same time


class Jobs(Protocol):
    """Where jobs are looked up."""

    async def get(self, job_id: str) -> Job:
        """Return one job; raises ``JobNotFound``."""
        ...

    async def list(
        self,
        *,
        status: JobStatus | None = None,
        project: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> Page:
        """Return jobs, newest first, those behind the page that gave the ``cursor``."""
        ...


@dataclass(frozen=True)
class ExperimentPage:
    """Some experiments, newest first, and where the next page begins."""

    experiments: list[Experiment]
    next_cursor: str | None


class Experiments:
    """Experiments, read from the jobs that they record."""

    def __init__(self, jobs: Jobs, settings: Settings, platforms: Platforms):
        self._jobs = jobs
        self._platforms = platforms
        self._settings = settings

    async def get(self, experiment_id: str) -> Experiment:
        """Return one experiment; raises ``NotFound``."""
        return experiment_of(await self._job(experiment_id))

    async def list(
        self,
        *,
        tracker: str | None = None,
        project: str | None = None,
        status: JobStatus | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> ExperimentPage:
        """Return experiments, newest first, those behind the page that gave the ``cursor``."""
        if tracker is not None:
            await self._check(tracker)
        page = await self._jobs.list(status=status, project=project, limit=limit, cursor=cursor)
        return ExperimentPage([experiment_of(job) for job in page.jobs], page.next_cursor)

    async def _check(self, tracker: str) -> None:
        if issue := usable.unknown(tracker, Feature.EXPERIMENTS):
            raise NotFound(f"{issue[0].upper()}{issue[1:]}.", field="tracker", tracker=tracker)
        connected = await self._platforms.connected(usable.outside(tracker))
        usable.check(tracker, Feature.EXPERIMENTS, connected, "tracker")

    async def compare(
        self,
        experiment_ids: Sequence[str],
        metric: str | None = None,
        direction: Direction | None = None,
        curves: Sequence[str] = CURVES,
    ) -> Comparison:
        """Put experiments side by side; raises ``NotFound`` or ``InvalidConfig`` with the place of the id at fault."""
        _refuse_doubles(experiment_ids)
        jobs = await self._jobs_of(experiment_ids)
        # A job that took over the adapter of another has trained nothing itself: its curve is the other's.
        runs = [self._settings.run_dir(job.reused_from or job.job_id) for job in jobs]
        drawn = await asyncio.to_thread(read_curves, runs, curves)
        return compare([experiment_of(job) for job in jobs], drawn, metric, direction)

    async def _job(self, experiment_id: str) -> Job:
        try:
            return await self._jobs.get(job_id_of_experiment(experiment_id))
        except JobNotFound:
            raise no_experiment(experiment_id) from None

    async def _jobs_of(self, experiment_ids: Sequence[str]) -> Sequence[Job]:
        """Read the jobs of experiments; of several that are not there, the first is named."""
        turns = asyncio.Semaphore(_AT_ONCE)

        async def read(place: int, experiment_id: str) -> Job:
            async with turns:
                try:
                    return await self._job(experiment_id)
                except NotFound:
                    raise NotFound(
                        f"There is no experiment {experiment_id!r} (number {place + 1} of experiment_ids).",
                        field=f"experiment_ids.{place}",
                        experiment_id=experiment_id,
                    ) from None

        found = await asyncio.gather(*(read(*item) for item in enumerate(experiment_ids)), return_exceptions=True)
        jobs: list[Job] = []
        for job in found:
            if isinstance(job, BaseException):
                raise job
            jobs.append(job)
        return jobs


def _refuse_doubles(experiment_ids: Sequence[str]) -> None:
    for place, experiment_id in enumerate(experiment_ids):
        if (first := experiment_ids.index(experiment_id)) < place:
            raise InvalidConfig(
                f"{experiment_id!r} is there twice.",
                field=f"experiment_ids.{place}",
                issue=f"Must not be the same as experiment_ids.{first}",
            )
