"""
The one place where errors become HTTP: the domain's own by class, Litestar's by what they mean.

A WebSocket is closed with 4000 + the status that a request would get.
"""

import logging
import re
from collections.abc import Iterable
from typing import Any, ClassVar
from uuid import uuid4

import msgspec
from litestar.connection import ASGIConnection, Request
from litestar.enums import MediaType, RequestEncodingType
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    SerializationException,
    ValidationException,
)
from litestar.params import BodyKwarg
from litestar.response import Response
from litestar.types import Receive, Scope, Send

from api.issues import invalid_parameters
from peft_studio import errors
from peft_studio.errors import StudioError

_MISSING = re.compile(r"Missing required \w+ parameter '([\w-]+)'")
logger = logging.getLogger(__name__)
OPENAI = "/v1/"  # below it clients of OpenAI's are answered
_OPENAI_TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    429: "rate_limit_error",
}
_LONGEST_REASON = 123  # bytes; what fits into a WebSocket's close frame


class MethodNotAllowed(StudioError):
    """This address does not take this method."""

    code = "METHOD_NOT_ALLOWED"


class HeadTooLarge(StudioError):
    """The request's address and headers are too large."""

    code = "HEAD_TOO_LARGE"


class UnsupportedMediaType(StudioError):
    """The request body is in a format that is not taken here."""

    code = "UNSUPPORTED_MEDIA_TYPE"


class PreconditionFailed(StudioError):
    """The request asks for a version of the protocol that is not spoken here."""

    code = "PRECONDITION_FAILED"


class RangeNotSatisfiable(StudioError):
    """The file ends before the range that was asked for."""

    code = "RANGE_NOT_SATISFIABLE"


class SlowReader(StudioError):
    """Messages are read too slowly."""

    code = "SLOW_READER"


class WireError:
    """An error as it goes out: status, body and headers."""

    _STATUS: ClassVar[dict[type[StudioError], int]] = {
        errors.InvalidConfig: 400,
        # Same code, another status: 401 says that the key of this very request is bad, and no platform's is.
        errors.CredentialRefused: 400,
        errors.AuthenticationFailed: 401,
        errors.InsufficientCredits: 402,
        errors.PermissionDenied: 403,
        errors.NotFound: 404,
        MethodNotAllowed: 405,
        SlowReader: 408,
        errors.Conflict: 409,
        errors.PlatformNotConnected: 409,
        PreconditionFailed: 412,
        errors.PayloadTooLarge: 413,
        UnsupportedMediaType: 415,
        RangeNotSatisfiable: 416,
        errors.RateLimitExceeded: 429,
        HeadTooLarge: 431,
        errors.ResourceUnavailable: 503,
    }

    def __init__(self, error: StudioError):
        self.error = error
        self.status = next((self._STATUS[kind] for kind in type(error).__mro__ if kind in self._STATUS), 500)

    @property
    def body(self) -> dict[str, Any]:
        """The error in the contract's shape."""
        return {"error": {"code": self.error.code, "message": self.error.message, "details": self.error.details}}

    @property
    def openai_body(self) -> dict[str, Any]:
        """The error as OpenAI's clients read it."""
        kind = _OPENAI_TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        said = {"message": self.error.message, "type": kind, "param": self.error.details.get("field")}
        return {"error": said | {"code": self.error.code.lower()}}

    def written(self, path: str = "") -> bytes:
        """Return the body as it goes out at an address."""
        # Details may hold anything that can be printed, so that a way to say what is wrong never fails itself.
        return msgspec.json.encode(self.openai_body if path.startswith(OPENAI) else self.body, enc_hook=str)

    @property
    def headers(self) -> dict[str, str]:
        """What HTTP wants to be said in headers."""
        headers: dict[str, str] = {}
        if self.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="peft-studio"'
        if self.status == 405:
            headers["Allow"] = ", ".join(self.error.details.get("allowed", []))
        if self.status == 416:
            headers["Content-Range"] = f"bytes */{self.error.details['size_bytes']}"
        if wait := self.error.details.get("retry_after_seconds"):
            headers["Retry-After"] = str(wait)
        return headers


def translate(error: Exception, connection: ASGIConnection[Any, Any, Any, Any]) -> WireError:
    """Turn whatever was raised into what the caller is told; what is our own fault is logged under a reference."""
    told = error if isinstance(error, StudioError) else _told(error, connection)
    if told is not None and (wire := WireError(told)).status != 500:
        return wire
    reference = uuid4().hex[:12]
    # Method and path only: headers carry keys, and bodies may carry credentials.
    scope = connection.scope
    logger.error("%s: %s %r", reference, scope.get("method", "WS"), scope["path"], exc_info=error)
    return WireError(errors.InternalError("Something went wrong inside the studio.", reference=reference))


def closing(error: Exception, socket: ASGIConnection[Any, Any, Any, Any]) -> tuple[int, str]:
    """Return the code and the reason with which a WebSocket is closed after an error."""
    wire = translate(error, socket)
    reason = f"{wire.error.code}: {wire.error.message}".encode()[:_LONGEST_REASON]
    return 4000 + wire.status, reason.decode(errors="ignore")


def respond(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer a request with an error."""
    wire = translate(error, request)
    body = wire.written(request.scope["path"])
    return Response(body, status_code=wire.status, headers=wire.headers, media_type=MediaType.JSON)


async def send_error(error: StudioError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request with an error from within a middleware."""
    request = Request[Any, Any, Any](scope, receive, send)
    await respond(request, error).to_asgi_response(app=None, request=request)(scope, receive, send)


def with_head(methods: Iterable[str]) -> list[str]:
    """Return an address's methods in order; HEAD is taken wherever GET is."""
    taken = {*methods}
    return sorted(taken | {"HEAD"} if "GET" in taken else taken)


async def read_body(request: Request[Any, Any, Any]) -> None:
    """Read a route's JSON body ahead of its validation; one without a declared format is taken as JSON."""
    body = request.route_handler.parsed_data_field
    if body is None or not isinstance(body.kwarg_definition, BodyKwarg):
        return
    wanted = RequestEncodingType(body.kwarg_definition.media_type)
    sent, _ = request.content_type
    if sent and sent != wanted and not (sent.endswith("+json") and wanted is RequestEncodingType.JSON):
        raise UnsupportedMediaType(f"The request body must be {wanted.value}, not {sent}.", expected=wanted.value)
    if wanted is not RequestEncodingType.JSON:
        return
    try:
        if await request.json() is None and not body.is_optional:
            raise errors.InvalidConfig("The request has no body; send a JSON object.", field="body", issue="Required")
    except SerializationException as error:
        raise errors.InvalidConfig("The request body is not JSON.", field="body", issue=str(error)) from error
    except RecursionError as error:
        raise errors.InvalidConfig(
            "The request body cannot be read.", field="body", issue="Must not be nested so deeply"
        ) from error


def _told(error: Exception, connection: ASGIConnection[Any, Any, Any, Any]) -> StudioError | None:
    """Put Litestar's errors into our words; None where the fault is not the caller's."""
    match error:
        case ValidationException() if missing := _MISSING.match(error.detail):
            return errors.InvalidConfig(f"{missing[1]}: it is missing.", field=missing[1], issue="Required")
        case ValidationException(extra=[_, *_] as found):
            return invalid_parameters(found, connection.route_handler.parsed_fn_signature.parameters)
        case NotFoundException():
            return errors.NotFound()
        case MethodNotAllowedException():
            allowed = (error.headers or {}).get("allow", "").split(", ")
            return MethodNotAllowed(allowed=with_head(method for method in allowed if method.isupper()))
        case HTTPException(status_code=413):
            limit = connection.route_handler.resolve_request_max_body_size()
            return errors.PayloadTooLarge(f"The request body must not be larger than {limit} bytes.", limit_bytes=limit)
        case HTTPException(detail="client disconnected prematurely"):  # Litestar's words for it, as a fault of ours
            return errors.InvalidConfig("The request broke off.", field="body", issue="Must be sent to its end")
        case HTTPException(status_code=400):
            return errors.InvalidConfig("The request cannot be read.", field="body", issue=error.detail)
        case _:
            return None
