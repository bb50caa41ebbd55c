"""OpenAI's fine-tuning jobs: the studio's jobs by another name. OpenAI's own document describes these routes."""

from collections.abc import Sequence
from typing import Annotated, Any

from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.params import Body, FromPath, FromQuery, QueryParameter, SkipValidation

from api.dependencies import Caller, Control, Jobs
from api.idempotency import IdempotencyKey
from api.openai.names import CHECKPOINT, EVENT, job_id_of, number_of
from api.openai.objects import FineTuningJob, JobCheckpoint, JobEvent, Page
from api.openai.orders import CreateFineTuningJob, renamed, wanted_metadata
from infra.jobs.history import JobHistory
from peft_studio.errors import StudioError
from peft_studio.jobs import Job

TheJobs = NamedDependency[SkipValidation[Jobs]]
TheControl = NamedDependency[SkipValidation[Control]]
TheHistory = NamedDependency[SkipValidation[JobHistory]]
Limit = Annotated[int, QueryParameter(ge=1, le=100)]
_AT_ONCE = 100


@post("/v1/fine_tuning/jobs", status_code=200, include_in_schema=False)
async def create_fine_tuning_job(
    data: Annotated[CreateFineTuningJob, Body()],
    jobs: TheJobs,
    idempotency_key: IdempotencyKey,
    request: Request[Caller, Any, Any],
) -> FineTuningJob:
    """Start a job; what is found fault with is named as it was sent."""
    config = data.config()
    try:
        submission = await jobs.submit(config, idempotency_key=idempotency_key, key_id=request.user.id)
    except StudioError as error:
        raise renamed(error) from None
    return FineTuningJob.of(submission.job)


@get("/v1/fine_tuning/jobs", include_in_schema=False)
async def list_fine_tuning_jobs(
    request: Request[Caller, Any, Any],
    jobs: TheJobs,
    history: TheHistory,
    after: FromQuery[str | None] = None,
    limit: Limit = 20,
) -> Page[FineTuningJob]:
    """Return jobs, newest first, also those that were not ordered here; or those with such metadata."""
    wanted = wanted_metadata(request.query_params)
    cursor = job_id_of(after, "after") if after else None
    found: list[Job] = []
    while len(found) <= limit:
        page = await jobs.list(limit=_AT_ONCE if wanted else limit + 1, cursor=cursor)
        found += [job for job in page.jobs if wanted.items() <= job.config.metadata.items()]
        if (cursor := page.next_cursor) is None:
            break
    shown = found[:limit]
    return Page[FineTuningJob].of(await _described(shown, history), has_more=len(found) > limit)


@get("/v1/fine_tuning/jobs/{fine_tuning_job_id:str}", include_in_schema=False)
async def get_fine_tuning_job(jobs: TheJobs, history: TheHistory, fine_tuning_job_id: FromPath[str]) -> FineTuningJob:
    """Return one job."""
    return (await _described([await jobs.get(job_id_of(fine_tuning_job_id))], history))[0]


@post("/v1/fine_tuning/jobs/{fine_tuning_job_id:str}/cancel", status_code=200, include_in_schema=False)
async def cancel_fine_tuning_job(jobs: TheJobs, fine_tuning_job_id: FromPath[str]) -> FineTuningJob:
    """Stop a job."""
    return FineTuningJob.of(await jobs.cancel(job_id_of(fine_tuning_job_id)))


@post("/v1/fine_tuning/jobs/{fine_tuning_job_id:str}/pause", status_code=200, include_in_schema=False)
async def pause_fine_tuning_job(control: TheControl, fine_tuning_job_id: FromPath[str]) -> FineTuningJob:
    """Have a job save a checkpoint and give its machine back."""
    return FineTuningJob.of(await control.pause(job_id_of(fine_tuning_job_id)))


@post("/v1/fine_tuning/jobs/{fine_tuning_job_id:str}/resume", status_code=200, include_in_schema=False)
async def resume_fine_tuning_job(control: TheControl, fine_tuning_job_id: FromPath[str]) -> FineTuningJob:
    """Have a paused job go on."""
    return FineTuningJob.of(await control.resume(job_id_of(fine_tuning_job_id)))


@get("/v1/fine_tuning/jobs/{fine_tuning_job_id:str}/events", include_in_schema=False)
async def list_fine_tuning_events(
    history: TheHistory, fine_tuning_job_id: FromPath[str], after: FromQuery[str | None] = None, limit: Limit = 20
) -> Page[JobEvent]:
    """Return what has happened to a job, newest first."""
    job_id = job_id_of(fine_tuning_job_id)
    before = number_of(EVENT, job_id, after) if after else None
    behind = [pair for pair in await history.events(job_id) if before is None or pair[0] < before]
    newest = behind[::-1][:limit]
    events = [JobEvent.of(job_id, number, event) for number, event in newest]
    return Page[JobEvent].of(events, has_more=len(behind) > limit)


@get("/v1/fine_tuning/jobs/{fine_tuning_job_id:str}/checkpoints", include_in_schema=False)
async def list_fine_tuning_checkpoints(
    history: TheHistory, fine_tuning_job_id: FromPath[str], after: FromQuery[str | None] = None, limit: Limit = 10
) -> Page[JobCheckpoint]:
    """Return the checkpoints that are there, newest first."""
    job_id = job_id_of(fine_tuning_job_id)
    before = number_of(CHECKPOINT, job_id, after) if after else None
    behind = [one for one in await history.checkpoints(job_id) if before is None or one.step < before]
    newest = [JobCheckpoint.of(job_id, one) for one in behind[::-1][:limit]]
    return Page[JobCheckpoint].of(newest, has_more=len(behind) > limit)


async def _described(jobs: Sequence[Job], history: JobHistory) -> list[FineTuningJob]:
    summaries = await history.summaries(jobs)
    return [FineTuningJob.of(job, summary) for job, summary in zip(jobs, summaries, strict=True)]


ROUTES = [
    create_fine_tuning_job,
    list_fine_tuning_jobs,
    get_fine_tuning_job,
    cancel_fine_tuning_job,
    pause_fine_tuning_job,
    resume_fine_tuning_job,
    list_fine_tuning_events,
    list_fine_tuning_checkpoints,
]
