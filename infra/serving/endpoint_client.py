"""Talks to an endpoint: loads and unloads its adapters, and asks them."""

import json
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from infra.hosts.prometheus import VLLM, since_last_look
from infra.serving.meter import Load
from infra.serving.questions import COMPLETIONS, Answered, answered, blamed, probed, prompted, said
from peft_studio.effect import Said
from peft_studio.errors import InternalError, InvalidConfig, RateLimitExceeded, ResourceUnavailable, StudioError

TOKEN_VARIABLE = "PEFT_STUDIO_ENDPOINT_TOKEN"
_BRIEF_SECONDS = 5.0
_LOAD_SECONDS = 120.0
_ANSWER_SECONDS = 600.0
_BROKEN = "The answer broke off: what serves the model has ended, or cannot be reached. Ask again in some seconds."
_BROKEN_OFF = f"data: {json.dumps({'error': {'message': _BROKEN, 'type': 'unavailable_error'}})}\n\n".encode()


@dataclass(frozen=True)
class Forwarded:
    """
    An endpoint's answer, as it comes; whoever has it reads ``pieces`` to their end or closes them.

    ``ended`` is called once all of it has been read.
    """

    client: httpx.AsyncClient
    response: httpx.Response
    ended: Callable[[], None] = lambda: None

    @property
    def status(self) -> int:
        """The status of the answer."""
        return self.response.status_code

    @property
    def media_type(self) -> str:
        """What the answer is."""
        return self.response.headers.get("content-type", "application/json")

    @property
    def headers(self) -> dict[str, str]:
        """What else its head says."""
        kept = ("retry-after", "cache-control")
        return {name: self.response.headers[name] for name in kept if name in self.response.headers}

    async def pieces(self) -> AsyncGenerator[bytes]:
        """
        Yield the answer's bytes, unpacked where they were compressed, and let go of the endpoint then.

        Events are yielded whole; a stream of them that breaks off, as when its endpoint was killed, ends with one that
        says so.
        """
        is_stream, begun = self.media_type.startswith("text/event-stream"), b""
        try:
            async for piece in self.response.aiter_bytes():
                whole, begun = _cut(begun + piece) if is_stream else (piece, b"")
                if whole:
                    yield whole
            if begun:
                yield begun
            self.ended()
        except httpx.TransportError:
            if not is_stream:
                raise
            yield _BROKEN_OFF
        finally:
            await self.response.aclose()
            await self.client.aclose()


def _cut(content: bytes) -> tuple[bytes, bytes]:
    """Divide a piece of a stream into the events that are whole, and what has begun of the next."""
    end = max(content.rfind(line) + len(line) if line in content else 0 for line in (b"\n\n", b"\r\n\r\n"))
    return content[:end], content[end:]


class EndpointClient:
    """
    A connection to the endpoint at a ``…/v1`` address; one that does not answer raises ``ResourceUnavailable``.

    The token, where the endpoint wants one, is read from the environment.
    """

    def __init__(self, url: str):
        token = os.environ.get(TOKEN_VARIABLE)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # It is on this machine: no proxy of the environment has a say, and there is no certificate to check.
        self._http = httpx.AsyncClient(
            base_url=url, headers=headers, timeout=_BRIEF_SECONDS, trust_env=False, verify=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connection."""
        await self._http.aclose()

    async def adapters(self) -> dict[str, str]:
        """Return the folders of the adapters that are loaded, by name."""
        models = (await self._request("GET", "/models", _BRIEF_SECONDS))["data"]
        return {model["id"]: model["root"] for model in models if model["parent"]}

    async def load(self, name: str, path: str) -> None:
        """Load an adapter; raises ``InvalidConfig`` with the reason where it cannot be served."""
        await self._request("POST", "/load_lora_adapter", _LOAD_SECONDS, {"lora_name": name, "lora_path": path})

    async def unload(self, name: str) -> None:
        """Unload an adapter."""
        await self._request("POST", "/unload_lora_adapter", _BRIEF_SECONDS, {"lora_name": name})

    async def ask(self, model: str, prompt: str, *, chat: bool, max_tokens: int, temperature: float) -> Answered:
        """Have a model answer a prompt, through its chat template or as it stands."""
        path, body = prompted(model, prompt, chat=chat, max_tokens=max_tokens, temperature=temperature)
        started = time.monotonic()
        answer = await self._request("POST", path, _ANSWER_SECONDS, body)
        return answered(answer, time.monotonic() - started)

    async def say(self, model: str, question: str | list[int] | list[dict[str, Any]], max_tokens: int) -> Said:
        """Have a model answer a text, tokens or messages greedily, and return the answer token by token."""
        path, body = probed(model, question, max_tokens)
        return said(await self._request("POST", path, _ANSWER_SECONDS, body | {"is_probe": True}))

    async def forward(self, path: str, body: Mapping[str, Any]) -> Forwarded:
        """Send a request on as it is; the answer, an error too, closes this connection when it was read."""
        request = self._http.build_request("POST", path, json=body, timeout=_ANSWER_SECONDS)
        try:
            return Forwarded(self._http, await self._http.send(request, stream=True))
        except httpx.TransportError as error:
            await self.close()
            raise _no_answer(error) from error

    async def load_of(self, model: str) -> Load:
        """Return how busy a model is."""
        metrics = await self._request("GET", "/../metrics.json", _BRIEF_SECONDS)
        return Load.model_validate(metrics["models"].get(model, {"requests_per_minute": 0, "avg_latency_ms": None}))

    async def load_of_all(self) -> Load | None:
        """
        Return how busy vLLM is since the last look: it tells none of its models from the others.

        None at the first look, and where it shows no counters.
        """
        counters = await self._request("GET", "/../metrics", _BRIEF_SECONDS)
        return since_last_look(str(self._http.base_url), str(counters), VLLM)

    async def _request(self, method: str, path: str, seconds: float, body: Mapping[str, Any] | None = None) -> Any:
        try:
            response = await self._http.request(method, path, json=body, timeout=seconds)
        except httpx.TransportError as error:
            raise _no_answer(error) from error
        if response.is_error:
            raise _error_of(response)
        is_json = response.headers.get("content-type", "").startswith("application/json")  # vLLM leaves it out at times
        return response.json() if is_json else response.text


def _no_answer(error: httpx.TransportError) -> ResourceUnavailable:
    return ResourceUnavailable(
        "The endpoint does not answer; it is started again if it ended, so try again in some seconds.",
        issue=type(error).__name__,
    )


def _error_of(response: httpx.Response) -> StudioError:
    """Turn an answer in OpenAI's error shape back into the error it came from."""
    try:
        error = response.json()["error"]
        message, field = str(error["message"]), error["param"]
    except (ValueError, KeyError, TypeError):
        return InternalError(f"The endpoint answered {response.status_code}.")
    if field == "messages":  # what a prompt was turned into
        message = message.replace("messages: ", "prompt: ", 1)
    if response.url.path.endswith(COMPLETIONS) and field != "model":
        field = blamed(field, message)
    details = {"field": field} if field else {}
    match response.status_code:
        case 404 if field == "model":
            return ResourceUnavailable("The endpoint has just begun to load the adapter; try again in some seconds.")
        case 400 | 404 | 413:
            return InvalidConfig(message, **details, issue=message)
        case 429:
            return RateLimitExceeded(message, retry_after_seconds=1)
        case 401 | 503:
            return ResourceUnavailable(message, **details)
        case _:
            return InternalError(message)
