"""``Client``: every call blocks until its answer is there."""

import time
from collections.abc import Generator
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from websockets.sync.client import connect

from peft_studio.client.calls import Blocking, Call, Pause, Procedure
from peft_studio.client.following import LOST, Trail
from peft_studio.client.operations import Operations
from peft_studio.client.reading import read_answer
from peft_studio.client.retrying import Tries
from peft_studio.events import Event

T = TypeVar("T")


class Client(Operations, Blocking):
    """
    A connection to a studio. Whatever the studio refuses is raised as the ``StudioError`` of its code.

    What fails for a moment (lost connections, 5xx, 429) is sent again up to ``repeats`` times; a POST that is sent
    twice is done once.
    """

    def __init__(self, url: str, api_key: str, *, timeout: float = 30.0, repeats: int = 3):
        self._url = url.rstrip("/")
        self._repeats = repeats
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(base_url=f"{self._url}/api/v1", headers=self._headers, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def follow(self, job_id: str, after: str | None = None) -> Generator[Event]:
        """
        Yield a job's events from its beginning to its final status; connects again where it was cut off.

        ``after`` is the ``cursor`` of an event seen before: the stream goes on behind it.
        """
        trail = Trail(self._url, job_id, after)
        while True:
            try:
                with connect(trail.address, additional_headers=self._headers) as socket:
                    for message in socket:
                        yield trail.take(message)
                        if trail.ended:
                            return
                raise ConnectionError("it ended the stream before the job's end")
            except LOST as lost:
                time.sleep(trail.pause(lost))

    def perform(self, operation: Call[T] | Procedure[T]) -> T:
        """Do what an operation describes."""
        return self._run(operation) if isinstance(operation, Generator) else self._send(operation)

    def _run(self, procedure: Procedure[T]) -> T:
        try:
            step = procedure.send(None)
            while True:
                try:
                    answer = time.sleep(step.seconds) if isinstance(step, Pause) else self._send(step)
                except Exception as error:
                    step = procedure.throw(error)
                else:
                    step = procedure.send(answer)
        except StopIteration as finished:
            return finished.value

    def _send(self, call: Call[T]) -> T:
        tries = Tries(self._repeats if call.repeatable else 0)
        while True:
            try:
                response = self._attempt(call)
            except httpx.TransportError as error:
                pause = tries.after_loss(error)
            else:
                if (pause := tries.after_answer(response)) is None:
                    return read_answer(call, response)
            time.sleep(pause)

    def _attempt(self, call: Call[Any]) -> httpx.Response:
        request = self._http.build_request(
            call.method,
            call.path,
            params=call.parameters,
            json=call.json,
            content=iter(call.body) if call.body else None,
            headers=call.all_headers,
            timeout=call.seconds or self._http.timeout,
        )
        response = self._http.send(request, stream=True)
        try:
            if call.into is None or response.is_error:
                response.read()
            else:
                self._save(call, response)
            return response
        finally:
            response.close()

    def _save(self, call: Call[Any], response: httpx.Response) -> None:
        assert call.into is not None
        with call.into.begin(response.headers) as receiving:
            for piece in response.iter_bytes():
                receiving.write(piece)
                receiving.tell()
            receiving.finish()
