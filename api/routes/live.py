"""A job's events as they happen: the WebSocket at ``/ws/jobs/{job_id}``."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Annotated, Any

from litestar import WebSocket, websocket
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromPath, QueryParameter, SkipValidation

from api.auth import SUBPROTOCOL, Authenticator
from api.dependencies import Jobs, Keys
from api.errors import closing
from api.following import read_within, until_the_first_ends, wait_for_revocation
from api.limits import OpenSockets
from api.wire import to_wire
from peft_studio.events import Event

Socket = WebSocket[Any, Any, Any]


@websocket("/ws/jobs/{job_id:str}")
async def follow_job(
    socket: Socket,
    job_id: FromPath[str],
    jobs: NamedDependency[SkipValidation[Jobs]],
    keys: NamedDependency[SkipValidation[Keys]],
    authenticator: NamedDependency[SkipValidation[Authenticator]],
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
        caller = await authenticator.caller_of_socket(socket)
        with sockets.held(caller.id):
            await until_the_first_ends(
                _send_all(socket, jobs.follow(job_id, after), sockets.send_seconds),
                _wait_for_leave(socket),
                wait_for_revocation(keys, caller.id),
            )
    except WebSocketDisconnect:
        return
    except Exception as error:
        code, reason = closing(error, socket)
    with suppress(WebSocketDisconnect, OSError):
        await socket.close(code, reason)


async def _send_all(socket: Socket, events: AsyncGenerator[tuple[str, Event]], seconds: float) -> None:
    # One event at a time: a client that reads slowly holds up its own stream, and nothing piles up here.
    async with aclosing(events):
        async for cursor, event in events:
            message = to_wire(event) | {"cursor": cursor}
            try:
                async with read_within(seconds):
                    await socket.send_json(message)
            except OSError as error:  # the server's way to say that the client has left
                raise WebSocketDisconnect(detail="the client has left") from error


async def _wait_for_leave(socket: Socket) -> None:
    """Wait for the client's goodbye: there may be nothing to send for a long time."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass  # whatever else clients say is read and ignored
    raise WebSocketDisconnect(detail="the client has left")


ROUTES = [follow_job]
