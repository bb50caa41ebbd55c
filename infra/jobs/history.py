"""What a job has left so far: every number it reported, and its checkpoints."""

import asyncio
from collections.abc import Sequence

from infra.jobs.control import Jobs
from infra.settings import Settings
from peft_studio.checkpoints import Checkpoint, list_checkpoints
from peft_studio.events import Event, Metrics
from peft_studio.jobs import Job, TrainingSummary
from peft_studio.run_dir import RunDir


class JobHistory:
    """Reads run directories; a job that has not run yet has nothing to show."""

    def __init__(self, jobs: Jobs, settings: Settings):
        self._jobs = jobs
        self._settings = settings

    async def checkpoints(self, job_id: str) -> Sequence[Checkpoint]:
        """Return the checkpoints that are there, oldest first; raises ``JobNotFound``."""
        return await asyncio.to_thread(list_checkpoints, await self._run(job_id))

    async def metrics(self, job_id: str, after_step: int = 0) -> Sequence[Metrics]:
        """Return all numbers of steps above ``after_step``, in the order they were reported; raises ``JobNotFound``."""
        run = await self._run(job_id)

        def read() -> Sequence[Metrics]:
            found = (event for _, event in run.events() if isinstance(event, Metrics))
            return [event for event in found if event.metrics.get("step", 0) > after_step]

        return await asyncio.to_thread(read)

    async def events(self, job_id: str) -> Sequence[tuple[int, Event]]:
        """Return all that has happened to a job, oldest first, with its numbers; raises ``JobNotFound``."""
        run = await self._run(job_id)
        return await asyncio.to_thread(lambda: list(run.events()))

    async def summaries(self, jobs: Sequence[Job]) -> Sequence[TrainingSummary | None]:
        """Return what training came to in each of some jobs; of one that trained nothing, in the one it relies on."""
        runs = [self._settings.run_dir(job.reused_from or job.job_id) for job in jobs]
        return await asyncio.to_thread(lambda: [run.read_summary() for run in runs])

    async def _run(self, job_id: str) -> RunDir:
        return self._settings.run_dir((await self._jobs.get(job_id)).job_id)
