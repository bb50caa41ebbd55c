"""Training jobs: create, list, look at, cancel, read the log of."""

from typing import Annotated, Any

from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body, FromPath, QueryParameter, SkipValidation

from api import examples
from api.dependencies import Caller, Jobs
from api.idempotency import IdempotencyKey
from api.openapi import documented
from api.wire import CreateJob, JobCancelled, JobCreated, JobList, JobLogs
from peft_studio.jobs import Job, JobStatus

TheJobs = NamedDependency[SkipValidation[Jobs]]


@post(
    "/jobs",
    summary="Create a training job",
    responses=documented(JobCreated, examples.CREATED, 402, 403, 409, 413, 415, status=201),
)
async def create_job(
    data: Annotated[CreateJob, Body(examples=[Example(value={"config": examples.CONFIG})])],
    jobs: TheJobs,
    idempotency_key: IdempotencyKey,
    request: Request[Caller, Any, Any],
) -> JobCreated:
    """
    Check a configuration, estimate what it takes, and start the job.

    A job on a rented machine holds `max_cost`, or else the high end of its estimate, in the monthly budgets of the API
    key and the project until it has ended; where one of them does not pay for that, it is refused.
    """
    return JobCreated.of(await jobs.submit(data.config, idempotency_key=idempotency_key, key_id=request.user.id))


@get(
    "/jobs",
    summary="List jobs",
    responses=documented(JobList, {"jobs": [examples.RUNNING], "total": 10, "next_cursor": None}),
)
async def list_jobs(
    jobs: TheJobs,
    status: Annotated[JobStatus | None, QueryParameter(description="Only jobs in this state.")] = None,
    provider: Annotated[str | None, QueryParameter(description="Only jobs on this provider's machines.")] = None,
    project: Annotated[str | None, QueryParameter(description="Only jobs of this project.")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="At most so many jobs.")] = 20,
    cursor: Annotated[str | None, QueryParameter(description="The next_cursor of the page before.")] = None,
) -> JobList:
    """Return jobs, newest first."""
    page = await jobs.list(status=status, provider=provider, project=project, limit=limit, cursor=cursor)
    return JobList(jobs=page.jobs, total=page.total, next_cursor=page.next_cursor)


@get("/jobs/{job_id:str}", summary="Get a job", responses=documented(Job, examples.COMPLETED, 404))
async def get_job(jobs: TheJobs, job_id: FromPath[str]) -> Job:
    """Return one job: its configuration, how far it is, and what it has produced."""
    return await jobs.get(job_id)


@post(
    "/jobs/{job_id:str}/cancel",
    status_code=200,
    summary="Cancel a job",
    responses=documented(JobCancelled, examples.CANCELLED, 403, 404, 409),
)
async def cancel_job(jobs: TheJobs, job_id: FromPath[str]) -> JobCancelled:
    """Stop a job, wait up to ten seconds for its end, and return its state then."""
    job = await jobs.cancel(job_id)
    return JobCancelled(job_id=job.job_id, status=job.status)


@get("/jobs/{job_id:str}/logs", summary="Get a job's log", responses=documented(JobLogs, examples.LOGS, 404))
async def get_job_logs(
    jobs: TheJobs,
    job_id: FromPath[str],
    lines: Annotated[int, QueryParameter(ge=1, le=10_000, description="At most so many of the newest lines.")] = 100,
) -> JobLogs:
    """Return the newest lines of a job's log, oldest first."""
    return JobLogs(logs=await jobs.logs(job_id, lines))


ROUTES = [create_job, list_jobs, get_job, cancel_job, get_job_logs]
