"""A job's events as Server-Sent Events."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from litestar import Request
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import Receive, Scope, Send

from api.dependencies import Keys
from api.errors import translate
from api.following import read_within, until_the_first_ends, wait_for_revocation
from api.limits import OpenSockets
from api.wire import to_wire
from peft_studio.events import Event

_RETRY_MILLISECONDS = 2000
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the second keeps nginx from collecting


class EventStream(ASGIStreamingResponse):
    """
    Sends events to their end. A stream counts as one of its key's WebSockets, and ends when they would.

    What ends it ahead of the events is told in a comment, which browsers skip: they ask again, behind the last event.
    """

    def __init__(self, events: AsyncGenerator[tuple[str, Event]], sockets: OpenSockets, keys: Keys):
        pieces = _written(events, sockets.ping_seconds)
        super().__init__(iterator=pieces, media_type="text/event-stream", headers=_HEADERS)
        self._pieces = pieces
        self._sockets = sockets
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; raises ``RateLimitExceeded`` where its key holds too many streams open."""
        last_words = b""
        with self._sockets.held(scope["user"].id):
            await self.start_response(send)
            try:
                await until_the_first_ends(
                    self._send_all(send),
                    _wait_for_leave(receive),
                    wait_for_revocation(self._keys, scope["user"].id),
                )
            except Exception as error:
                told = translate(error, Request[Any, Any, Any](scope)).error
                last_words = f": {told.code}: {told.message}\n\n".encode()
        # A slow reader gets to see this when it has read what is before it; the protocol knows how long to wait.
        await send({"type": "http.response.body", "body": last_words, "more_body": False})

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                async with read_within(self._sockets.send_seconds):
                    await send({"type": "http.response.body", "body": piece.encode(), "more_body": True})


async def _written(events: AsyncGenerator[tuple[str, Event]], seconds: float) -> AsyncGenerator[str]:
    """Write events down, and a comment whenever there is none for a while: proxies close what is silent for long."""
    async with aclosing(events):
        yield f"retry: {_RETRY_MILLISECONDS}\n\n"
        upcoming = asyncio.ensure_future(anext(events))
        try:
            while True:
                done, _ = await asyncio.wait({upcoming}, timeout=seconds)
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


async def _wait_for_leave(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
