"""A job's events as they happen: the WebSocket at ``/ws/jobs/{job_id}``."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from typing import Annotated, Any

from litestar import WebSocket, websocket
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromPath, QueryParameter, SkipValidation

from api.auth import SUBPROTOCOL, Authenticator
from api.dependencies import Jobs, Keys
from api.errors import SlowReader, closing
from api.limits import OpenSockets
from api.wire import to_wire
from peft_studio.errors import AuthenticationFailed
from peft_studio.events import Event

Socket = WebSocket[Any, Any, Any]
_KEY_SECONDS = 1.0  # how often it is looked whether the key still holds; the record itself is read less often


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
            await _until_the_first_ends(
                _send_all(socket, jobs.follow(job_id, after), sockets.send_seconds),
                _wait_for_leave(socket),
                _wait_for_revocation(keys, caller.id),
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
                async with asyncio.timeout(seconds):
                    await socket.send_json(message)
            except TimeoutError:
                raise SlowReader(f"No message was read for {seconds:g} s; go on behind the last cursor.") from None
            except OSError as error:  # the server's way to say that the client has left
                raise WebSocketDisconnect(detail="the client has left") from error


async def _wait_for_leave(socket: Socket) -> None:
    """Wait for the client's goodbye: there may be nothing to send for a long time."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass  # whatever else clients say is read and ignored
    raise WebSocketDisconnect(detail="the client has left")


async def _wait_for_revocation(keys: Keys, key_id: str) -> None:
    while await keys.live(key_id) is not None:
        await asyncio.sleep(_KEY_SECONDS)
    raise AuthenticationFailed("The API key was revoked.")


async def _until_the_first_ends(*work: Coroutine[Any, Any, None]) -> None:
    """Do several things at once until one of them ends, which decides; raises what that one raised."""
    tasks = [asyncio.create_task(part) for part in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


ROUTES = [follow_job]
