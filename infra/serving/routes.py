"""The endpoint's HTTP: OpenAI's routes, vLLM's for adapters, health and figures."""

import asyncio
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, TypeVar

from litestar import Litestar, get, post
from litestar.connection import ASGIConnection, Request
from litestar.di import NamedDependency, Provide
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler
from litestar.params import SkipValidation
from litestar.response import Response, Stream
from pydantic import BaseModel, ValidationError

from infra.serving.answers import ChatForm, CompletionForm, Form, usage
from infra.serving.asking import generation_of
from infra.serving.engine import Engine
from infra.serving.generation import Generation, Piece
from infra.serving.meter import Meter
from infra.serving.scheduler import Delivery
from infra.serving.served import Models, Served
from infra.serving.wire import ChatRequest, CompletionRequest, LoadAdapter, UnloadAdapter, explain
from peft_studio.errors import (
    AuthenticationFailed,
    InternalError,
    InvalidConfig,
    NotFound,
    PayloadTooLarge,
    RateLimitExceeded,
    ResourceUnavailable,
    StudioError,
)

M = TypeVar("M", bound=BaseModel)
log = logging.getLogger(__name__)
MAX_BODY = 4 << 20
_ERRORS: dict[type[StudioError], tuple[int, str, str | None]] = {
    InvalidConfig: (400, "invalid_request_error", None),
    AuthenticationFailed: (401, "authentication_error", "invalid_api_key"),
    NotFound: (404, "not_found_error", "model_not_found"),
    PayloadTooLarge: (413, "invalid_request_error", None),
    RateLimitExceeded: (429, "rate_limit_error", "queue_full"),
    ResourceUnavailable: (503, "unavailable_error", None),
}


class Serving:
    """What the routes work with: the models, the engine, and the loop that answers are written in."""

    def __init__(self, models: Models, engine: Engine):
        self.models = models
        self.engine = engine
        self.meter = Meter()

    async def open(self) -> None:
        """Start the engine; its pieces go to their requests in this event loop."""
        loop = asyncio.get_running_loop()
        self.engine.start(lambda pieces: _hand_over(loop, pieces))

    async def close(self) -> None:
        """Stop the engine."""
        await asyncio.to_thread(self.engine.stop)

    async def submit(self, asked: CompletionRequest | ChatRequest) -> tuple[Generation, AsyncIterator[Piece]]:
        """Queue what is asked for; return it with its pieces as they come."""
        generation = await asyncio.to_thread(generation_of, asked, self.models)
        pieces: asyncio.Queue[Piece] = asyncio.Queue()
        generation.receive = pieces.put_nowait
        self.engine.submit(generation)
        return generation, self._follow(asked, generation, pieces)

    async def _follow(
        self, asked: CompletionRequest | ChatRequest, generation: Generation, pieces: asyncio.Queue[Piece]
    ) -> AsyncIterator[Piece]:
        started = time.monotonic()
        try:
            while True:
                piece = await pieces.get()
                if piece.finish_reason and not asked.is_probe:
                    self.meter.count(asked.model, time.monotonic() - started)
                yield piece
                if piece.is_last:
                    return
        finally:
            generation.cancelled = True  # whoever stops listening is not answered any further


def _hand_over(loop: asyncio.AbstractEventLoop, pieces: list[Delivery]) -> None:
    def hand_over() -> None:
        for generation, piece in pieces:
            generation.receive(piece)

    with suppress(RuntimeError):  # the loop is closed: nobody listens any more
        loop.call_soon_threadsafe(hand_over)


TheServing = NamedDependency[SkipValidation[Serving]]
AnyRequest = Request[Any, Any, Any]


@post("/v1/completions", status_code=200)
async def complete(request: AnyRequest, serving: TheServing) -> Response[Any]:
    """Go on from a text."""
    asked = await _body(request, CompletionRequest)
    return await _answer(request, serving, asked, CompletionForm(asked.model, asked.logprobs is not None))


@post("/v1/chat/completions", status_code=200)
async def chat(request: AnyRequest, serving: TheServing) -> Response[Any]:
    """Answer a conversation."""
    asked = await _body(request, ChatRequest)
    return await _answer(request, serving, asked, ChatForm(asked.model, asked.logprobs))


@get("/v1/models")
async def list_models(serving: TheServing) -> dict[str, Any]:
    """List the base model and its adapters."""
    context = serving.models.base.context
    return {"object": "list", "data": [_shown(served, context) for served in serving.models.all()]}


@post("/v1/load_lora_adapter", status_code=200, media_type="text/plain")
async def load_adapter(request: AnyRequest, serving: TheServing) -> str:
    """Load an adapter from a folder on this machine."""
    asked = await _body(request, LoadAdapter)
    await serving.models.load(asked.lora_name, asked.lora_path)
    return f"Success: LoRA adapter '{asked.lora_name}' added successfully."


@post("/v1/unload_lora_adapter", status_code=200, media_type="text/plain")
async def unload_adapter(request: AnyRequest, serving: TheServing) -> str:
    """Unload an adapter."""
    asked = await _body(request, UnloadAdapter)
    await serving.models.unload(asked.lora_name)
    return f"Success: LoRA adapter '{asked.lora_name}' removed successfully."


@get("/health", opt={"public": True})
async def health() -> Response[bytes]:
    """Answer, once requests are taken."""
    return Response(b"")


@get("/metrics.json")
async def metrics(serving: TheServing) -> dict[str, Any]:
    """Say how busy the endpoint is, and each of its models."""
    models = {served.name: serving.meter.load(served.name).model_dump() for served in serving.models.all()}
    scheduler = serving.engine.scheduler
    whole = serving.meter.load().model_dump()
    return {**whole, "running": scheduler.running, "waiting": scheduler.waiting, "models": models}


def create_app(serving: Serving, token: str | None = None) -> Litestar:
    """Put the endpoint's application together; with a token, requests must bear it."""

    def check_token(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        if token is None or handler.opt.get("public"):
            return
        scheme, _, given = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            raise AuthenticationFailed("The endpoint's token is missing or wrong; send Authorization: Bearer TOKEN.")

    return Litestar(
        [complete, chat, list_models, load_adapter, unload_adapter, health, metrics],
        dependencies={"serving": Provide(lambda: serving, sync_to_thread=False)},
        guards=[check_token],
        exception_handlers={Exception: respond},
        request_max_body_size=MAX_BODY,
        openapi_config=None,
        logging_config=None,
        on_startup=[serving.open],
        on_shutdown=[serving.close],
    )


async def _answer(
    request: AnyRequest, serving: Serving, asked: CompletionRequest | ChatRequest, form: Form
) -> Response[Any]:
    generation, pieces = await serving.submit(asked)
    if asked.stream:
        lines = _lines(generation, pieces, form, with_usage=asked.stream_options.include_usage)
        return Stream(lines, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
    collecting = asyncio.create_task(_collect(pieces))
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({collecting, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not collecting.done():
            return Response(None, status_code=499)  # nobody reads it
        choice = form.whole(*collecting.result())
        return Response({**form.envelope([choice], is_chunk=False), "usage": usage(generation)})
    finally:
        collecting.cancel()
        gone.cancel()
        generation.cancelled = True


async def _collect(pieces: AsyncIterator[Piece]) -> tuple[str, list[Any], str | None]:
    text, tokens, reason = "", [], None
    async for piece in pieces:
        if piece.error:
            raise piece.error
        text, tokens, reason = text + piece.text, [*tokens, *piece.tokens], piece.finish_reason
    return text, tokens, reason


async def _disconnected(request: AnyRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _lines(
    generation: Generation, pieces: AsyncIterator[Piece], form: Form, *, with_usage: bool
) -> AsyncIterator[str]:
    """Write an answer as server-sent events."""
    is_first = True
    try:
        async for piece in pieces:
            if piece.error:
                yield _line(_error_body(piece.error)[1])
                break
            yield _line(form.envelope([form.part(piece, is_first=is_first)], is_chunk=True))
            is_first = False
        if with_usage:
            yield _line({**form.envelope([], is_chunk=True), "usage": usage(generation)})
        yield "data: [DONE]\n\n"
    finally:
        generation.cancelled = True


def _line(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


async def _body(request: AnyRequest, kind: type[M]) -> M:
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        raise explain(error) from error


def _shown(served: Served, context: int) -> dict[str, Any]:
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "peft-studio",
        "root": served.root,
        "parent": served.parent,
        "max_model_len": context,
    }


def respond(request: AnyRequest, error: Exception) -> Response[Any]:
    """Answer with an error in OpenAI's shape."""
    if isinstance(error, HTTPException) and error.status_code < 500:
        body = {"message": error.detail, "type": "invalid_request_error", "param": None, "code": None}
        return Response({"error": body}, status_code=error.status_code)
    if not isinstance(error, StudioError):
        log.error("%s %s", request.method, request.url.path, exc_info=error)
        error = InternalError("Something went wrong inside the endpoint; its log says what.")
    status, body = _error_body(error)
    wait = error.details.get("retry_after_seconds")
    return Response(body, status_code=status, headers={"Retry-After": str(wait)} if wait else {})


def _error_body(error: StudioError) -> tuple[int, dict[str, Any]]:
    kind = next((kind for kind in type(error).__mro__ if kind in _ERRORS), None)
    status, name, code = _ERRORS[kind] if kind else (500, "internal_error", None)
    details = error.details
    body = {"message": error.message, "type": name, "param": details.get("field"), "code": details.get("code", code)}
    return status, {"error": body}
