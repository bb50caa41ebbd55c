"""Experiments: every job is one, recorded by the studio's own tracker, which is always on; trackers have others."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from infra.adapters.records import Page
from infra.experiments.curves import Points, aligned, read_points
from infra.experiments.pages import Cursor, merge
from infra.platforms import usable
from infra.platforms.connections import Platforms
from infra.settings import Settings
from infra.trackers.runs import READERS, TrackerRuns
from peft_studio.errors import InvalidConfig, JobNotFound, NotFound
from peft_studio.experiments import (
    LOCAL,
    Comparison,
    Direction,
    Experiment,
    UnavailableTracker,
    compare,
    experiment_of,
    job_id_of_experiment,
    no_experiment,
)
from peft_studio.jobs import Job, JobStatus
from peft_studio.platforms import Feature
from peft_studio.trackers.table import LIBRARIES, tracker_named

CURVES = ("loss", "eval_loss")  # what a comparison shows by step, unless other metrics are asked for
_AT_ONCE = 8  # experiments that are read at the same time
_PAGE, _MOST_PAGES = 100, 20  # jobs that are looked through for those of one tracker


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
    """Some experiments, newest first, where the next page begins, and which trackers have not answered."""

    experiments: list[Experiment]
    next_cursor: str | None
    unavailable: Sequence[UnavailableTracker] = ()


class Experiments:
    """The jobs of the studio and, where ``runs`` are given, those that connected trackers have beside them."""

    def __init__(self, jobs: Jobs, settings: Settings, platforms: Platforms, runs: TrackerRuns | None = None):
        self._jobs = jobs
        self._platforms = platforms
        self._settings = settings
        self._runs = runs

    async def get(self, experiment_id: str) -> Experiment:
        """Return one experiment; raises ``NotFound``."""
        if ":" in experiment_id and self._runs:
            return await self._runs.get(experiment_id)
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
        """Return experiments, newest first, those behind the page that gave the ``cursor``; local are all jobs."""
        name = None
        if tracker is not None:
            name = await self._check(tracker)
        if self._runs is None or name == LOCAL or not await self._platforms.connected(READERS):
            return await self._of_jobs(None if name == LOCAL else name, project, status, limit, cursor)
        begin = Cursor.decode(cursor)
        jobs, answers = await asyncio.gather(
            self._of_jobs(name, project, status, limit, begin.job),
            self._runs.list(name, project, limit + len(begin.seen), begin.before),
        )
        elsewhere = [run for run in answers.runs if status in (None, run.status)]
        page = merge(jobs.experiments, jobs.next_cursor is not None, elsewhere, limit, begin)
        return ExperimentPage(page.experiments, page.next_cursor, answers.unavailable)

    async def _of_jobs(
        self, tracker: str | None, project: str | None, status: JobStatus | None, limit: int, cursor: str | None
    ) -> ExperimentPage:
        """Return jobs as experiments; those of one tracker are picked out of all, of a bounded number at a time."""
        found: list[Experiment] = []
        for _ in range(_MOST_PAGES):
            size = limit if tracker is None else _PAGE
            page = await self._jobs.list(status=status, project=project, limit=size, cursor=cursor)
            some = [experiment_of(job) for job in page.jobs]
            found += [one for one in some if tracker in (None, one.tracker)]
            cursor = page.next_cursor
            if len(found) > limit:
                return ExperimentPage(found[:limit], found[limit - 1].job_id)
            if tracker is None or cursor is None:
                break
        return ExperimentPage(found, cursor)

    async def _check(self, tracker: str) -> str:
        """Return the tracker's own name; raises ``NotFound`` or ``PlatformNotConnected``."""
        if issue := usable.unknown(tracker, Feature.EXPERIMENTS):
            raise NotFound(f"{issue[0].upper()}{issue[1:]}.", field="tracker", tracker=tracker)
        name = tracker_named(tracker) or LOCAL
        if name != LOCAL and LIBRARIES[name].needs_account:
            connected = await self._platforms.connected(usable.outside(tracker))
            usable.check(tracker, Feature.EXPERIMENTS, connected, "tracker")
        return name

    async def compare(
        self,
        experiment_ids: Sequence[str],
        metric: str | None = None,
        direction: Direction | None = None,
        curves: Sequence[str] = CURVES,
    ) -> Comparison:
        """
        Put experiments side by side, of whatever trackers.

        Raises ``NotFound`` or ``InvalidConfig`` with the place of the id at fault, and ``ResourceUnavailable`` where a
        tracker does not answer.
        """
        _refuse_doubles(experiment_ids)
        turns = asyncio.Semaphore(_AT_ONCE)

        async def read(place: int, experiment_id: str) -> tuple[Experiment, Mapping[str, Points]]:
            async with turns:
                try:
                    return await self._with_points(experiment_id, curves)
                except NotFound:
                    raise NotFound(
                        f"There is no experiment {experiment_id!r} (number {place + 1} of experiment_ids).",
                        field=f"experiment_ids.{place}",
                        experiment_id=experiment_id,
                    ) from None

        results = await asyncio.gather(*(read(*item) for item in enumerate(experiment_ids)), return_exceptions=True)
        found: list[tuple[Experiment, Mapping[str, Points]]] = []
        for result in results:  # of several that are not there, the first is named
            if isinstance(result, BaseException):
                raise result
            found.append(result)
        series = {name: [points.get(name, {}) for _, points in found] for name in curves}
        drawn = {name: aligned(some) for name, some in series.items() if any(some)}
        return compare([experiment for experiment, _ in found], drawn, metric, direction)

    async def _with_points(self, experiment_id: str, curves: Sequence[str]) -> tuple[Experiment, Mapping[str, Points]]:
        if ":" in experiment_id and self._runs:
            found = await self._runs.get(experiment_id)
            return found, await self._runs.points(experiment_id, curves) if curves else {}
        job = await self._job(experiment_id)
        # A job that took over the adapter of another has trained nothing itself: its curve is the other's.
        run = self._settings.run_dir(job.reused_from or job.job_id)
        return experiment_of(job), await asyncio.to_thread(read_points, run, curves)

    async def _job(self, experiment_id: str) -> Job:
        try:
            return await self._jobs.get(job_id_of_experiment(experiment_id))
        except JobNotFound:
            raise no_experiment(experiment_id) from None


def _refuse_doubles(experiment_ids: Sequence[str]) -> None:
    for place, experiment_id in enumerate(experiment_ids):
        if (first := experiment_ids.index(experiment_id)) < place:
            raise InvalidConfig(
                f"{experiment_id!r} is there twice.",
                field=f"experiment_ids.{place}",
                issue=f"Must not be the same as experiment_ids.{first}",
            )
