"""Training an adapter again from its lineage alone, and what is different here from where it was trained."""

import asyncio
import platform
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel

from infra.adapters.lineages import read_lineage
from infra.settings import Settings
from peft_studio.errors import Conflict
from peft_studio.jobs import Job
from peft_studio.lineage import LINEAGE, Lineage
from peft_studio.packages import installed


class Jobs(Protocol):
    """Where jobs are looked up."""

    async def get(self, job_id: str) -> Job:
        """Return one job; raises ``JobNotFound``."""
        ...


class Difference(BaseModel):
    """A package that is of another version now; null where there is none of it on the studio's own machine."""

    then: str
    now: str | None


class Reproductions:
    """Finds the lineages of jobs."""

    def __init__(self, jobs: Jobs, settings: Settings):
        self._jobs = jobs
        self._settings = settings

    async def lineage_of(self, job_id: str) -> Lineage:
        """Return a job's lineage, also where its adapter was deleted; raises ``Conflict`` where there is none."""
        job = await self._jobs.get(job_id)
        if lineage := await asyncio.to_thread(self._read, job):
            return lineage
        raise Conflict(
            f"The job has no lineage: it is {job.status} and made no adapter, or was made before lineages were kept. "
            "Clone it instead.",
            job_id=job_id,
            status=job.status,
        )

    def _read(self, job: Job) -> Lineage | None:
        in_store = read_lineage(Path(job.artifact.path).parent) if job.artifact else None
        return in_store or self._settings.run_dir(job.job_id).read(LINEAGE, Lineage)


def differences(lineage: Lineage) -> dict[str, Difference]:
    """Return the packages that the lineage pins and that are of another version on this machine."""
    now = {name: _installed(name) for name in lineage.versions}
    return {name: Difference(then=then, now=now[name]) for name, then in lineage.versions.items() if now[name] != then}


def _installed(package: str) -> str | None:
    if package == "python":
        return platform.python_version()
    return installed(package)
