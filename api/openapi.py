"""The API's description of itself: the OpenAPI document, its page, and how a route adds to them."""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from litestar import Litestar, Request, Router, get
from litestar.config.response_cache import CACHE_FOREVER
from litestar.enums import OpenAPIMediaType as DocumentType
from litestar.openapi import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import (
    Components,
    Example,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    Reference,
    RequestBody,
    Schema,
    SecurityScheme,
)
from litestar.routes import HTTPRoute
from pydantic import BaseModel

from api.auth import PUBLIC
from api.documentation import DocumentationPage
from api.examples import ERRORS
from api.idempotency import HEADER, LONGEST_KEY, takes_key
from api.published import published_document
from api.wire import ErrorBody

DESCRIPTION = """
Every request needs an API key, as `Authorization: Bearer KEY`. Keys have a role: `read` may look, `write` may also
submit and cancel, `admin` may also make and revoke keys. Answers say how many requests are left in `RateLimit-Limit`,
`RateLimit-Remaining` and `RateLimit-Reset`. Every error has the same body: `{"error": {"code", "message", "details"}}`.
`HEAD` is answered wherever `GET` is.

### Sending a request again

Every POST takes an `Idempotency-Key`. For a day, the same key with the same request gives the first answer again, byte
for byte and with the header `Idempotency-Replayed: true`; with another request it is refused (409), and while the first
request is still at work, the second waits for it. Failures that pass (429, 5xx) are not kept: the request is tried
again. The keys of another API key are others. Two routes keep no answers, because these hold secrets: a new API key is
shown once (a repeated request gets 409), and every `POST /tickets` gives a new ticket.

### Following a job live

`ws://HOST/ws/jobs/{job_id}` (not below `/api/v1`) sends what has happened so far, then what happens, then closes
normally (1000) after the job's final status. Each message has a `type` (`status`, `metrics`, `log` or `error`),
`job_id`, `timestamp` and a `cursor`; `?after=CURSOR` goes on behind that message.

The key goes into the `Authorization` header or, from a browser, into the subprotocols:
`new WebSocket(url, ["peft-studio", "bearer." + key])`. Scripts that should not know the key get a ticket for it from
`POST /api/v1/tickets`: it opens one WebSocket within a minute, as `?ticket=TICKET` or as the subprotocol
`"ticket." + ticket` beside `"peft-studio"`. A key in the address is refused: addresses are logged.

The server pings (every 20 s by default); whoever does not answer is let go with 1011. Whoever reads too slowly, so that
there is no room for a message for 10 s, is let go with 4408; so is, with 4401, whose key is revoked. A client goes on
behind the last cursor it has seen. Otherwise the socket is closed with 4000 + the status that a request would get: 4401
no valid key or ticket, 4404 no such job, 4429 too many sockets for this key or too many wrong keys.
"""


class _Answer(ResponseSpec):
    """What is said of an answer: the same wherever a handler is, which Litestar copies to the last leaf, twice."""

    def __deepcopy__(self, _: dict[int, Any]) -> "_Answer":
        """Return itself: nobody changes it."""
        return self


def documented(model: type[BaseModel], example: dict[str, Any], *errors: int, status: int = 200) -> dict[int, Any]:
    """Describe a route's answers: the good one, the errors of its own, and those that every route has."""
    every = {*errors, 400, 401, 429, 500, 503}
    return {status: answer(status, model, example)} | {code: error_answer(code) for code in sorted(every)}


def documented_without_body(status: int, *errors: int) -> dict[int, Any]:
    """Describe the answers of a route whose good one is told by its status and headers alone."""
    every = {*errors, 400, 401, 429, 500, 503}
    good = _Answer(data_container=None, description=HTTPStatus(status).phrase, generate_examples=False)
    return {status: good} | {code: error_answer(code) for code in sorted(every)}


def documented_file(media_type: str, *errors: int) -> dict[int, Any]:
    """Describe the answers of a route that sends a file."""
    every = {*errors, 400, 401, 429, 500, 503}
    good = _Answer(bytes, generate_examples=False, description="The file", media_type=media_type)
    return {200: good} | {code: error_answer(code) for code in sorted(every)}


@dataclass
class WithOptionalBody(Operation):
    """A route that does without a body; as its ``operation_class``."""

    def __post_init__(self) -> None:
        """Say so in the document, which otherwise says that there must be one."""
        if isinstance(self.request_body, RequestBody):
            self.request_body.required = False


def streamed(event: type[BaseModel], example: str, *errors: int) -> dict[int, Any]:
    """Describe the answers of a route that sends Server-Sent Events, of which each is such an ``event``."""
    answers = documented(event, {}, *errors)
    return answers | {
        200: _Answer(
            data_container=event,
            description="OK",
            media_type="text/event-stream",  # pyright: ignore[reportArgumentType]
            generate_examples=False,
            examples=[Example(summary="OK", value=example)],
        )
    }


def error_answer(status: int) -> ResponseSpec:
    """Describe the error with this status."""
    return answer(status, ErrorBody, ERRORS[status])


def answer(status: int, model: type[BaseModel], example: dict[str, Any]) -> ResponseSpec:
    """Describe one answer."""
    return _Answer(
        data_container=model,
        description=HTTPStatus(status).phrase,
        generate_examples=False,
        examples=[Example(summary=HTTPStatus(status).phrase, value=example)],
    )


def describe_idempotency(app: Litestar) -> None:
    """Have the document say of every POST that heeds it that it takes an ``Idempotency-Key``."""
    for route in app.routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else ():
            if "POST" in handler.http_methods and takes_key(handler.opt):
                handler.operation_class = _repeatable(handler.operation_class)


def _repeatable(operation_class: type[Operation]) -> type[Operation]:
    """Return a class of operations that take an ``Idempotency-Key`` besides."""

    class Repeatable(operation_class):
        def __init__(self, **fields: Any):
            super().__init__(**fields)
            self.parameters = [*(self.parameters or []), Reference(ref="#/components/parameters/IdempotencyKey")]
            refusal = OpenAPIMediaType(
                schema=Reference(ref="#/components/schemas/ErrorBody"),
                examples={"409": Example(summary=HTTPStatus(409).phrase, value=ERRORS[409])},
            )
            self.responses = self.responses or {}
            self.responses.setdefault(
                "409", OpenAPIResponse(description=HTTPStatus(409).phrase, content={"application/json": refusal})
            )

    return Repeatable


IDEMPOTENCY_KEY = Parameter(
    name=HEADER,
    param_in="header",
    description="Chosen by the caller: sent again within a day, with the same request, it gives the same answer.",
    schema=Schema(type=OpenAPIType.STRING, min_length=1, max_length=LONGEST_KEY, pattern=r"^[\x20-\x7e]+$"),
    examples={"uuid": Example(summary="A random one", value="7f9c24e5-2f41-4a0e-8f0c-1d2b3a4c5d6e")},
)


def _same_for_all(_: Request[Any, Any, Any]) -> str:
    return "openapi.json"  # whatever the query, so that the cache holds one document


@get(
    "/openapi.json",
    media_type=DocumentType.OPENAPI_JSON,
    include_in_schema=False,
    opt=PUBLIC,
    cache=CACHE_FOREVER,
    cache_key_builder=_same_for_all,
)
async def openapi_document(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Return the OpenAPI document."""
    return await asyncio.to_thread(published_document, request.app)  # a third of a second, once


def openapi_config() -> OpenAPIConfig:
    """Describe the API as a whole; its page is at ``/docs``."""
    return OpenAPIConfig(
        title="PEFT Studio",
        version=version("peft-studio"),
        description=DESCRIPTION,
        use_handler_docstrings=True,
        security=[{"bearer": []}],
        components=Components(
            security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer", description="An API key.")},
            parameters={"IdempotencyKey": IDEMPOTENCY_KEY},
        ),
        render_plugins=[DocumentationPage()],
        openapi_router=Router("/docs", route_handlers=[], include_in_schema=False, opt=PUBLIC),
    )
