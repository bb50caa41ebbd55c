"""``AsyncClient``: every call is awaited. The same as ``Client`` otherwise, operation by operation."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from websockets.asyncio.client import connect

from peft_studio.client.calls import Awaited, Call, Pause, Procedure
from peft_studio.client.following import LOST, Trail
from peft_studio.client.operations import Operations
from peft_studio.client.reading import read_answer
from peft_studio.client.retrying import Tries
from peft_studio.events import Event

T = TypeVar("T")


class AsyncClient(Operations, Awaited):
    """
    A connection to a studio. Whatever the studio refuses is raised as the ``StudioError`` of its code.

    What fails for a moment (lost connections, 5xx, 429) is sent again up to ``repeats`` times; a POST that is sent
    twice is done once.
    """

    def __init__(self, url: str, api_key: str, *, timeout: float = 30.0, repeats: int = 3):
        self._url = url.rstrip("/")
        self._repeats = repeats
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.AsyncClient(base_url=f"{self._url}/api/v1", headers=self._headers, timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def follow(self, job_id: str, after: str | None = None) -> AsyncGenerator[Event]:
        """
        Yield a job's events from its beginning to its final status; connects again where it was cut off.

        ``after`` is the ``cursor`` of an event seen before: the stream goes on behind it.
        """
        trail = Trail(self._url, job_id, after)
        while True:
            try:
                async with connect(trail.address, additional_headers=self._headers) as socket:
                    async for message in socket:
                        yield trail.take(message)
                        if trail.ended:
                            return
                raise ConnectionError("it ended the stream before the job's end")
            except LOST as lost:
                await asyncio.sleep(trail.pause(lost))

    async def perform(self, operation: Call[T] | Procedure[T]) -> T:
        """Do what an operation describes."""
        return await (self._run(operation) if isinstance(operation, Generator) else self._send(operation))

    async def _run(self, procedure: Procedure[T]) -> T:
        # A procedure's own work is to read and to hash files: not on the event loop.
        go_on, given = procedure.send, None
        while True:
            step, finished = await asyncio.to_thread(_advance, go_on, given)
            try:
                match step:
                    case None:
                        return finished
                    case Pause(seconds):
                        go_on, given = procedure.send, await asyncio.sleep(seconds)
                    case _:
                        go_on, given = procedure.send, await self._send(step)
            except Exception as error:
                go_on, given = procedure.throw, error

    async def _send(self, call: Call[T]) -> T:
        tries = Tries(self._repeats if call.repeatable else 0)
        while True:
            try:
                response = await self._attempt(call)
            except httpx.TransportError as error:
                pause = tries.after_loss(error)
            else:
                if (pause := tries.after_answer(response)) is None:
                    return read_answer(call, response)
            await asyncio.sleep(pause)

    async def _attempt(self, call: Call[Any]) -> httpx.Response:
        request = self._http.build_request(
            call.method,
            call.path,
            params=call.parameters,
            json=call.json,
            content=aiter(call.body) if call.body else None,
            headers=call.all_headers,
            timeout=call.seconds or self._http.timeout,
        )
        response = await self._http.send(request, stream=True)
        try:
            if call.into is None or response.is_error:
                await response.aread()
            else:
                await self._save(call, response)
            return response
        finally:
            await response.aclose()

    async def _save(self, call: Call[Any], response: httpx.Response) -> None:
        assert call.into is not None
        with call.into.begin(response.headers) as receiving:
            async for piece in response.aiter_bytes():
                await asyncio.to_thread(receiving.write, piece)
                receiving.tell()
            await asyncio.to_thread(receiving.finish)


def _advance(go_on: Any, given: Any) -> tuple[Call[Any] | Pause | None, Any]:
    """Take a procedure to its next step, or to its end (a ``StopIteration`` cannot leave a thread)."""
    try:
        return go_on(given), None
    except StopIteration as finished:
        return None, finished.value
