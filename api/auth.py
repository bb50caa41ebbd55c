"""Who is calling: bearer keys on requests and WebSockets, and what each role may do."""

from litestar.connection import ASGIConnection
from litestar.datastructures import Headers
from litestar.enums import ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from api.dependencies import Caller, Keys
from peft_studio.errors import AuthenticationFailed, PermissionDenied

PUBLIC = {"public": True}  # as a route's ``opt``: no key needed, and nothing counted
READING = {"reading": True}  # of a route that only looks, although its method is POST
SUBPROTOCOL = "peft-studio"
_READING = {"GET", "HEAD", "OPTIONS"}


class Authentication(ASGIMiddleware):
    """Lets a request through only with a valid key, and notes whose it is as ``scope["user"]``."""

    # WebSockets are not here: they are accepted first, so that the client gets to see why they are closed.
    scopes = (ScopeType.HTTP,)
    exclude_opt_key = "public"

    def __init__(self, keys: Keys):
        self._keys = keys

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Find out who is calling."""
        scope["user"] = await authenticate(self._keys, bearer_key(Headers.from_scope(scope)))
        await next_app(scope, receive, send)


async def authenticate(keys: Keys, secret: str | None) -> Caller:
    """Return whose key this is; raises ``AuthenticationFailed`` where it is nobody's."""
    if not secret:
        raise AuthenticationFailed("The request carries no API key; send it as 'Authorization: Bearer KEY'.")
    if (caller := await keys.authenticate(secret)) is None:
        raise AuthenticationFailed("The API key is not valid; it may have been revoked or mistyped.")
    return caller


def bearer_key(headers: Headers) -> str | None:
    """Take the key out of the Authorization header."""
    scheme, _, secret = headers.get("authorization", "").strip().partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else None


def socket_key(headers: Headers, subprotocols: list[str]) -> str | None:
    """Take the key out of a WebSocket handshake: browsers cannot set headers, but can offer ``bearer.KEY``."""
    offered = (name.removeprefix("bearer.") for name in subprotocols if name.startswith("bearer."))
    return bearer_key(headers) or next(offered, None)


def role_allows(connection: ASGIConnection, handler: BaseRouteHandler) -> None:  # pyright: ignore[reportMissingTypeArgument]
    """Guard all routes: a key with the role ``read`` may only look."""
    if handler.opt.get("public") or connection.scope["type"] != ScopeType.HTTP:
        return
    reading = connection.scope["method"] in _READING or handler.opt.get("reading")
    if not reading and connection.scope["user"].role == "read":
        raise PermissionDenied("This API key may only read; use one with the role write.", role="read")
