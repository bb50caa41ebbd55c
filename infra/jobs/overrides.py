"""Overriding the promotion gate: what it refused is deployed all the same, and who wanted that is recorded."""

import asyncio
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType
from prefect.client.schemas.sorting import ArtifactSort

from infra.adapters.lineages import add_promotion
from infra.deploying.deployments import AdapterDeployments, Created
from infra.jobs.locks import changing
from infra.jobs.reads import RESULT
from infra.jobs.record import JobRecord
from infra.prefect_patience import answering
from infra.settings import Settings
from peft_studio.deployments import DeploymentConfig
from peft_studio.errors import Conflict
from peft_studio.jobs import Job, JobResult, flow_run_id_of
from peft_studio.promotion import Override, Promotion


class Jobs(Protocol):
    """Where jobs are looked up."""

    async def get(self, job_id: str) -> Job:
        """Return one job; raises ``JobNotFound``."""
        ...


class Results(Protocol):
    """Where the results of jobs are kept."""

    async def note(self, job_id: str, promotion: Promotion) -> None:
        """Have the job's result say this of its gate, for good."""
        ...


class ResultsInPrefect:
    """Results as artifacts of the jobs' flow runs, of which the newest counts."""

    async def note(self, job_id: str, promotion: Promotion) -> None:
        """Add an artifact with the same result and this promotion."""
        run_id = flow_run_id_of(job_id)
        async with answering(), get_client() as client:
            result = await _read(client, run_id)
            data = result.model_copy(update={"promotion": promotion}).model_dump(mode="json")
            key = f"{job_id.replace('_', '-')}-result"
            await client.create_artifact(ArtifactCreate(type=RESULT, key=key, data=data, flow_run_id=run_id))


class Overrides:
    """Has adapters deployed that a gate has refused."""

    def __init__(self, jobs: Jobs, results: Results, deployments: AdapterDeployments, settings: Settings):
        self._jobs = jobs
        self._results = results
        self._deployments = deployments
        self._settings = settings

    async def promote(self, job_id: str, override: Override) -> tuple[Promotion, Created]:
        """
        Record who overrides a job's gate and why, then deploy; asked again it is the first override and deployment.

        Raises ``JobNotFound``, and ``Conflict`` where no gate has refused anything.
        """
        async with changing(job_id):
            job = await self._jobs.get(job_id)
            promotion, adapter_id, artifact = job.promotion, job.adapter_id, job.artifact
            if promotion is None or promotion.allowed or adapter_id is None or artifact is None:
                raise Conflict("No promotion gate has refused this job's adapter.", job_id=job_id, status=job.status)
            if promotion.override is None:
                promotion = promotion.model_copy(update={"override": override})
                await self._results.note(job_id, promotion)
                await asyncio.to_thread(_say, JobRecord(job_id, self._settings), override)
            # Every time: a process that died after the first note may not have come to it.
            run = self._settings.run_dir(job_id)
            await asyncio.to_thread(add_promotion, Path(artifact.path).parent, run, promotion)
        platform = job.config.deploy.platform if job.config.deploy else "local"
        created = await self._deployments.create(adapter_id, platform, DeploymentConfig(), key=f"promote {job_id}")
        return promotion, created


def _say(record: JobRecord, override: Override) -> None:
    record.say(f"The gate is overridden with the key {override.key_name!r}: {override.reason}", "WARNING")


async def _read(client: PrefectClient, run_id: UUID) -> JobResult:
    found = await client.read_artifacts(
        artifact_filter=ArtifactFilter(
            type=ArtifactFilterType(any_=[RESULT]), flow_run_id=ArtifactFilterFlowRunId(any_=[run_id])
        ),
        sort=ArtifactSort.CREATED_DESC,
        limit=1,
    )
    if not found:
        raise Conflict("The job's result is gone, so nothing can be added to it.")
    data: Any = found[0].data  # as text where the job's own process has written it
    return JobResult.model_validate_json(data) if isinstance(data, str) else JobResult.model_validate(data)
