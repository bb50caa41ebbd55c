"""What is done with training jobs: plan, clone, pause, resume, retry, have a checkpoint saved."""

from typing import Annotated, Any

from litestar import Request, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body, FromPath, SkipValidation

from api import examples, job_examples
from api.auth import needs
from api.dependencies import Caller, Control, Jobs
from api.idempotency import IdempotencyKey
from api.job_wire import CheckpointSaved, CloneJob, JobChanged, JobPlan, JobPromoted, PromoteJob
from api.openapi import WithOptionalBody, documented
from api.wire import CreateJob, JobCreated
from infra.jobs.overrides import Overrides
from infra.planning.job_plans import JobPlans
from peft_studio.events import now
from peft_studio.placement import RaisedLimits
from peft_studio.promotion import Override

TheJobs = NamedDependency[SkipValidation[Jobs]]
TheControl = NamedDependency[SkipValidation[Control]]


@post(
    "/jobs/plan",
    status_code=200,
    summary="Plan a training job",
    responses=documented(JobPlan, job_examples.PLAN, 402, 403, 409, 413, 415),
)
async def plan_job(
    data: Annotated[CreateJob, Body(examples=[Example(value={"config": examples.CONFIG})])],
    plans: NamedDependency[SkipValidation[JobPlans]],
) -> JobPlan:
    """Check a configuration and say what its job would take, as creating it does, but create nothing."""
    return JobPlan.of(await plans.plan(data.config))


@post(
    "/jobs/{job_id:str}/clone",
    summary="Clone a job",
    operation_class=WithOptionalBody,
    responses=documented(JobCreated, examples.CREATED, 402, 403, 404, 409, 413, 415, status=201),
)
async def clone_job(
    jobs: TheJobs,
    job_id: FromPath[str],
    idempotency_key: IdempotencyKey,
    request: Request[Caller, Any, Any],
    data: Annotated[CloneJob | None, Body(examples=[Example(value={"config": {"learning_rate": 1e-4}})])] = None,
) -> JobCreated:
    """Start a new job with another one's configuration, changed where the body says so."""
    config = (data or CloneJob()).config_of(await jobs.get(job_id))
    clone = await jobs.submit(config, idempotency_key=idempotency_key, parent_job_id=job_id, key_id=request.user.id)
    return JobCreated.of(clone)


@post(
    "/jobs/{job_id:str}/pause",
    status_code=200,
    summary="Pause a job",
    responses=documented(JobChanged, job_examples.PAUSED, 403, 404, 409),
)
async def pause_job(control: TheControl, job_id: FromPath[str]) -> JobChanged:
    """
    Hold a job back, or have it save a checkpoint, end its processes and give its machine back.

    A paused job is `pending`, in the phase `paused`. Where it takes more than 15 seconds the phase is still `pausing`.
    """
    return JobChanged.of(await control.pause(job_id))


@post(
    "/jobs/{job_id:str}/resume",
    status_code=200,
    summary="Resume a paused job",
    responses=documented(JobChanged, job_examples.RESUMED, 403, 404, 409),
)
async def resume_job(control: TheControl, job_id: FromPath[str]) -> JobChanged:
    """Have a paused job go on from its last checkpoint, as soon as it is its turn."""
    return JobChanged.of(await control.resume(job_id))


@post(
    "/jobs/{job_id:str}/retry",
    status_code=200,
    summary="Try a job again",
    operation_class=WithOptionalBody,
    responses=documented(JobChanged, job_examples.RESUMED, 402, 403, 404, 409, 413, 415),
)
async def retry_job(
    control: TheControl,
    job_id: FromPath[str],
    data: Annotated[RaisedLimits | None, Body(examples=[Example(value={"max_cost": 5.0})])] = None,
) -> JobChanged:
    """
    Have a job that failed or was cancelled go on from its last checkpoint; its id and its history stay.

    One that had reached its limits is given others by the body.
    """
    return JobChanged.of(await control.retry(job_id, data))


@post(
    "/jobs/{job_id:str}/checkpoint",
    status_code=200,
    summary="Save a checkpoint",
    responses=documented(CheckpointSaved, job_examples.CHECKPOINT_SAVED, 403, 404, 409),
)
async def save_checkpoint(control: TheControl, job_id: FromPath[str]) -> CheckpointSaved:
    """Have a job that trains save a checkpoint after the step it is at; the two newest of a job are kept."""
    return CheckpointSaved(job_id=job_id, checkpoint=await control.checkpoint(job_id))


@post(
    "/jobs/{job_id:str}/promote",
    status_code=200,
    opt=needs("admin"),
    summary="Override a job's promotion gate",
    responses=documented(JobPromoted, job_examples.PROMOTED, 402, 403, 404, 409, 413, 415),
)
async def promote_job(
    data: Annotated[PromoteJob, Body(examples=[Example(value=job_examples.PROMOTE)])],
    overrides: NamedDependency[SkipValidation[Overrides]],
    job_id: FromPath[str],
    request: Request[Caller, Any, Any],
) -> JobPromoted:
    """
    Have the adapter deployed that the job's gate has refused. It takes an admin's key.

    Who did it, when and why is kept with the job and in the adapter's lineage. Asked again, it is the first override
    that stands, and the same deployment.
    """
    override = Override(key_id=request.user.id, key_name=request.user.name, at=now(), reason=data.reason)
    promotion, created = await overrides.promote(job_id, override)
    return JobPromoted(job_id=job_id, deployment_id=created.deployment.deployment_id, promotion=promotion)


ROUTES = [plan_job, clone_job, pause_job, resume_job, retry_job, save_checkpoint, promote_job]
