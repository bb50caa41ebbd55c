"""What a job has left so far and what happens to it: checkpoints, metrics, events as a stream."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractContextManager
from typing import Annotated, Any

from litestar import Request, get
from litestar.di import NamedDependency
from litestar.enums import MediaType
from litestar.params import FromPath, HeaderParameter, QueryParameter, SkipValidation
from litestar.response import Response, Stream

from api import job_examples
from api.dependencies import Jobs
from api.job_wire import CheckpointList, MetricsHistory
from api.limits import OpenSockets
from api.openapi import documented, streamed
from api.wire import to_wire
from infra.job_history import JobHistory
from peft_studio.events import Event

TheHistory = NamedDependency[SkipValidation[JobHistory]]
HEARTBEAT_SECONDS = 15.0  # proxies close what is silent for longer than about a minute
_RETRY_MILLISECONDS = 2000
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
    responses=streamed(job_examples.STREAM, 404),
)
async def stream_events(
    request: Request[Any, Any, Any],
    jobs: NamedDependency[SkipValidation[Jobs]],
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
) -> Stream:
    """
    Send a job's events, those so far and those to come, as Server-Sent Events; end after its final status.

    `data` is what the WebSocket sends, `event` its type, `id` its cursor. A stream counts as a WebSocket of the key's.
    """
    await jobs.get(job_id)
    chunks = _chunks(jobs.follow(job_id, last_event_id or after), sockets.held(request.scope["user"].id))
    first = await anext(chunks)  # whatever is wrong is said before the answer begins
    return Stream(_joined(first, chunks), media_type="text/event-stream", headers=_HEADERS)


_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the second keeps nginx from collecting


async def _joined(first: str, rest: AsyncGenerator[str]) -> AsyncGenerator[str]:
    try:
        yield first
        async for chunk in rest:
            yield chunk
    finally:
        await rest.aclose()


async def _chunks(events: AsyncIterator[tuple[str, Event]], held: AbstractContextManager[None]) -> AsyncGenerator[str]:
    with held:
        yield f"retry: {_RETRY_MILLISECONDS}\n\n"
        upcoming = asyncio.ensure_future(anext(events))
        try:
            while True:
                done, _ = await asyncio.wait({upcoming}, timeout=HEARTBEAT_SECONDS)
                if not done:
                    yield ": nothing new\n\n"
                    continue
                try:
                    cursor, event = upcoming.result()
                except StopAsyncIteration:
                    return
                data = json.dumps(to_wire(event) | {"cursor": cursor}, separators=(",", ":"))
                yield f"id: {cursor}\nevent: {event.type}\ndata: {data}\n\n"
                upcoming = asyncio.ensure_future(anext(events))
        finally:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
            if isinstance(events, AsyncGenerator):
                await events.aclose()


ROUTES = [list_checkpoints, get_metrics, stream_events]
