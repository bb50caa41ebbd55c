"""A job's events as they happen: the WebSocket at ``/ws/jobs/{job_id}``."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Annotated, Any

from litestar import WebSocket, websocket
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromPath, QueryParameter, SkipValidation

from api.auth import SUBPROTOCOL, authenticate, socket_key
from api.dependencies import Jobs, Keys
from api.errors import translate
from api.limits import OpenSockets
from api.wire import to_wire
from peft_studio.events import Event

Socket = WebSocket[Any, Any, Any]
_LONGEST_REASON = 123  # bytes; what fits into a close frame


@websocket("/ws/jobs/{job_id:str}")
async def follow_job(
    socket: Socket,
    job_id: FromPath[str],
    jobs: NamedDependency[SkipValidation[Jobs]],
    keys: NamedDependency[SkipValidation[Keys]],
    sockets: NamedDependency[SkipValidation[OpenSockets]],
    after: Annotated[str | None, QueryParameter()] = None,
) -> None:
    """
    Send a job's events, those so far and those to come, then close normally.

    The socket is accepted before anything is checked, because only then does a client see why it is closed.
    """
    offered: list[str] = socket.scope["subprotocols"]
    await socket.accept(subprotocols=SUBPROTOCOL if SUBPROTOCOL in offered else None)
    code, reason = 1000, ""
    try:
        caller = await authenticate(keys, socket_key(socket.headers, offered))
        with sockets.held(caller.id):
            await _until_client_leaves(socket, _send_all(socket, jobs.follow(job_id, after)))
    except WebSocketDisconnect:
        return
    except Exception as error:
        wire = translate(error, socket)
        code, reason = 4000 + wire.status, f"{wire.error.code}: {wire.error.message}"
    with suppress(WebSocketDisconnect, OSError):
        await socket.close(code, reason.encode()[:_LONGEST_REASON].decode(errors="ignore"))


async def _send_all(socket: Socket, events: AsyncIterator[tuple[str, Event]]) -> None:
    # One event at a time: a client that reads slowly holds up its own stream, and nothing piles up here.
    async for cursor, event in events:
        message = to_wire(event) | {"cursor": cursor}
        try:
            await socket.send_json(message)
        except OSError as error:  # the server's way to say that the client has left
            raise WebSocketDisconnect(detail="the client has left") from error


async def _until_client_leaves(socket: Socket, sending: Coroutine[Any, Any, None]) -> None:
    """Send, but stop as soon as the client is gone: there may be nothing to send for a long time."""
    tasks = [asyncio.create_task(sending), asyncio.create_task(_wait_for_leave(socket))]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _wait_for_leave(socket: Socket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass  # whatever clients say is read, so that their goodbye is seen, and ignored
    raise WebSocketDisconnect(detail="the client has left")


ROUTES = [follow_job]
