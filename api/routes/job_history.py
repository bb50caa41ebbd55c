"""What a job has left so far and what happens to it: checkpoints, metrics, events as a stream."""

import asyncio
from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.enums import MediaType
from litestar.params import FromPath, HeaderParameter, QueryParameter, SkipValidation
from litestar.response import Response

from api import job_examples
from api.dependencies import Jobs, Keys
from api.event_stream import EventStream
from api.job_wire import CheckpointList, MetricsHistory, StreamedEvent
from api.limits import OpenSockets
from api.openapi import documented, streamed
from infra.jobs.history import JobHistory

TheHistory = NamedDependency[SkipValidation[JobHistory]]
_CURSOR = r"^[0-9]{1,18}$"


@get(
    "/jobs/{job_id:str}/checkpoints",
    summary="List a job's checkpoints",
    responses=documented(CheckpointList, job_examples.CHECKPOINTS, 404),
)
async def list_checkpoints(history: TheHistory, job_id: FromPath[str]) -> CheckpointList:
    """Return the checkpoints that are there, oldest first; the two newest are kept."""
    return CheckpointList(checkpoints=await history.checkpoints(job_id))


@get(
    "/jobs/{job_id:str}/metrics",
    summary="Get a job's metrics",
    responses=documented(MetricsHistory, job_examples.METRICS, 404),
)
async def get_metrics(
    history: TheHistory,
    job_id: FromPath[str],
    after_step: Annotated[int, QueryParameter(ge=0, le=10**15, description="Only of later steps than this.")] = 0,
) -> Response[bytes]:
    """Return all numbers that training has reported, oldest first: one entry a step, and one an evaluation."""
    events = await history.metrics(job_id, after_step)
    # There may be a million of them, so this is no work for the event loop.
    body = await asyncio.to_thread(lambda: MetricsHistory.of(job_id, events).model_dump_json(exclude_none=True))
    return Response(body.encode(), media_type=MediaType.JSON)


@get(
    "/jobs/{job_id:str}/events",
    summary="Follow a job's events",
    media_type="text/event-stream",
    responses=streamed(StreamedEvent, job_examples.STREAM, 404),
)
async def stream_events(
    jobs: NamedDependency[SkipValidation[Jobs]],
    keys: NamedDependency[SkipValidation[Keys]],
    sockets: NamedDependency[SkipValidation[OpenSockets]],
    job_id: FromPath[str],
    after: Annotated[
        str | None, QueryParameter(pattern=_CURSOR, max_length=18, description="Only events behind this cursor.")
    ] = None,
    last_event_id: Annotated[
        str | None,
        HeaderParameter(
            name="Last-Event-ID", pattern=_CURSOR, max_length=18, description="The same, as browsers send it."
        ),
    ] = None,
) -> EventStream:
    """
    Send a job's events, those so far and those to come, as Server-Sent Events; end after its final status.

    `data` is what the WebSocket sends, `event` its type, `id` its cursor. A stream counts as a WebSocket of the key's,
    and ends like one when its reader is slow or the key is revoked; a comment says so.
    """
    await jobs.get(job_id)  # whatever is wrong is said before the answer begins
    return EventStream(jobs.follow(job_id, last_event_id or after), sockets, keys)


ROUTES = [list_checkpoints, get_metrics, stream_events]
