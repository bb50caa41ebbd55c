"""Publishing adapters in registries, and training them again from their lineage."""

from typing import Annotated, Any

from litestar import Request, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body, FromPath, SkipValidation
from pydantic import ValidationError

from api import registry_wire as wire
from api.dependencies import Caller, Jobs
from api.idempotency import IdempotencyKey
from api.issues import invalid_body
from api.openapi import documented
from api.registry_wire import AdapterPublishing, JobReproduced, PublishAdapter, Reproduce
from api.wire import JobCreated
from infra.adapters.records import AdapterRecords
from infra.adapters.reproduction import Reproductions, differences
from infra.registries.publisher import Publisher
from peft_studio.config import TrainingConfig
from peft_studio.lineage import Lineage

TheJobs = NamedDependency[SkipValidation[Jobs]]
AnyRequest = Request[Caller, Any, Any]


@post(
    "/adapters/{adapter_id:str}/publish",
    status_code=202,
    summary="Publish an adapter",
    responses=documented(AdapterPublishing, wire.PUBLISHING, 403, 404, 409, 413, 415, status=202),
)
async def publish_adapter(
    adapters: NamedDependency[SkipValidation[AdapterRecords]],
    publisher: NamedDependency[SkipValidation[Publisher]],
    adapter_id: FromPath[str],
    data: Annotated[PublishAdapter, Body(examples=[Example(value=wire.PUBLISH)])],
) -> AdapterPublishing:
    """
    Send an adapter to registries, behind the caller's back; what was asked for is carried out also after a restart.

    Asking again changes nothing where it is published already, and tries again where it is not. Several adapters that
    are published in one place are versions there.
    """
    adapter = await publisher.publish(await adapters.get(adapter_id), data.registries)
    return AdapterPublishing(adapter_id=adapter.id, registry_url=adapter.registry_url, registries=adapter.registries)


@post(
    "/jobs/{job_id:str}/reproduce",
    summary="Train a job's adapter again",
    responses=documented(JobReproduced, wire.REPRODUCED, 402, 403, 404, 409, 413, 415, status=201),
)
async def reproduce_job(
    jobs: TheJobs,
    reproductions: NamedDependency[SkipValidation[Reproductions]],
    job_id: FromPath[str],
    idempotency_key: IdempotencyKey,
    request: AnyRequest,
) -> JobReproduced:
    """Start a job from another one's lineage alone, pinned to the base model's revision and the data's content."""
    lineage = await reproductions.lineage_of(job_id)
    return await _start(jobs, lineage, idempotency_key, request, job_id)


@post(
    "/jobs/reproduce",
    summary="Train an adapter again from its lineage",
    responses=documented(JobReproduced, wire.REPRODUCED, 402, 403, 409, 413, 415, status=201),
)
async def reproduce_lineage(
    jobs: TheJobs,
    idempotency_key: IdempotencyKey,
    request: AnyRequest,
    data: Annotated[Reproduce, Body(examples=[Example(value={"lineage": wire.LINEAGE})])],
) -> JobReproduced:
    """Start a job from the `lineage.json` that travels with an adapter; the data have to be here, unchanged."""
    return await _start(jobs, data.lineage, idempotency_key, request)


async def _start(
    jobs: Jobs, lineage: Lineage, idempotency_key: str | None, request: AnyRequest, parent: str | None = None
) -> JobReproduced:
    try:
        config = lineage.reproduction()
    except ValidationError as error:  # a lineage that was written by hand, or by another version
        raise invalid_body(error, TrainingConfig) from None
    submitted = await jobs.submit(config, idempotency_key=idempotency_key, parent_job_id=parent, key_id=request.user.id)
    return JobReproduced(**dict(JobCreated.of(submitted)), differences=differences(lineage))


OF_ADAPTERS, OF_JOBS = [publish_adapter], [reproduce_job, reproduce_lineage]
