"""Who is calling: keys on requests, keys and tickets on WebSockets, and what each role may do."""

import ipaddress
import time
from typing import Any

from litestar import WebSocket
from litestar.connection import ASGIConnection
from litestar.datastructures import Headers
from litestar.enums import ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from api.dependencies import Caller, Keys, Role
from api.limits import RequestLog
from infra.tickets import Tickets
from peft_studio.errors import AuthenticationFailed, PermissionDenied, RateLimitExceeded

PUBLIC = {"public": True}  # as a route's ``opt``: no key needed, and nothing counted
READING = {"role": "read"}  # of a route that only looks, although its method is POST
SUBPROTOCOL = "peft-studio"
_READING = {"GET", "HEAD", "OPTIONS"}
_RANK: dict[Role, int] = {"read": 0, "write": 1, "admin": 2}
_KEY_PARAMETERS = {"key", "api_key", "apikey", "token", "access_token"}


def needs(role: Role) -> dict[str, Any]:
    """Return a route's ``opt`` that asks for this role; by default it is read for looking, and write for the rest."""
    return {"role": role}


class Authenticator:
    """Finds out whose key or ticket it is; whoever tries wrong ones is answered less and less."""

    def __init__(self, keys: Keys, tickets: Tickets, wrong_per_minute: int):
        self._keys = keys
        self.tickets = tickets
        self._wrong = RequestLog(wrong_per_minute)

    async def caller_of_request(self, scope: Scope) -> Caller:
        """Return whose request it is; raises ``AuthenticationFailed`` where it is nobody's."""
        _refuse_key_in_address(scope)
        return await self._by_key(bearer_key(Headers.from_scope(scope)), scope)

    async def caller_of_socket(self, socket: WebSocket[Any, Any, Any]) -> Caller:
        """
        Return whose WebSocket it is, by its key or ticket; raises ``AuthenticationFailed`` where it is nobody's.

        Browsers cannot set headers; they offer ``bearer.KEY`` or ``ticket.TICKET`` as subprotocols, or ``?ticket=``.
        """
        scope = socket.scope
        _refuse_key_in_address(scope)
        offered: list[str] = scope["subprotocols"]
        ticket = socket.query_params.get("ticket") or _offered(offered, "ticket.")
        if ticket:
            return await self._by_ticket(ticket, scope)
        return await self._by_key(bearer_key(socket.headers) or _offered(offered, "bearer."), scope)

    async def _by_key(self, secret: str | None, scope: Scope) -> Caller:
        if not secret:
            raise AuthenticationFailed("The request carries no API key; send it as 'Authorization: Bearer KEY'.")
        # Someone who keeps trying costs no look into the record; a valid key is let in all the same.
        search = self._wrong.has_room(_address(scope), time.monotonic())
        if (caller := await self._keys.authenticate(secret, search=search)) is not None:
            return caller
        self._count_wrong(scope)
        raise AuthenticationFailed("The API key is not valid; it may have been revoked or mistyped.")

    async def _by_ticket(self, ticket: str, scope: Scope) -> Caller:
        key_id = await self.tickets.redeem(ticket)
        if key_id is not None and (caller := await self._keys.live(key_id)) is not None:
            return caller
        self._count_wrong(scope)
        raise AuthenticationFailed("The ticket is not valid: each works once, within a minute. Ask for a new one.")

    def _count_wrong(self, scope: Scope) -> None:
        quota = self._wrong.admit(_address(scope), time.monotonic())
        if not quota.admitted:
            raise RateLimitExceeded(
                f"Too many wrong API keys from this address; try again in {quota.reset} s.",
                retry_after_seconds=quota.reset,
            )


class Authentication(ASGIMiddleware):
    """Lets a request through only with a valid key, and notes whose it is as ``scope["user"]``."""

    # WebSockets are not here: they are accepted first, so that the client gets to see why they are closed.
    scopes = (ScopeType.HTTP,)
    exclude_opt_key = "public"

    def __init__(self, authenticator: Authenticator):
        self._authenticator = authenticator

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Find out who is calling."""
        scope["user"] = await self._authenticator.caller_of_request(scope)
        await next_app(scope, receive, send)


def bearer_key(headers: Headers) -> str | None:
    """Take the key out of the Authorization header."""
    scheme, _, secret = headers.get("authorization", "").strip().partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else None


def role_allows(connection: ASGIConnection, handler: BaseRouteHandler) -> None:  # pyright: ignore[reportMissingTypeArgument]
    """Guard all routes: a key with the role ``read`` may only look, and some things are for admins."""
    if handler.opt.get("public") or connection.scope["type"] != ScopeType.HTTP:
        return
    usual = "read" if connection.scope["method"] in _READING else "write"
    needed: Role = handler.opt.get("role", usual)
    require(connection.scope["user"].role, needed)


def require(role: Role, needed: Role) -> None:
    """Raise ``PermissionDenied`` where a key's role does not do."""
    if _RANK[role] < _RANK[needed]:
        may = {"read": "may only read", "write": "may read and write"}[role]
        raise PermissionDenied(f"This API key {may}; use one with the role {needed}.", role=role)


def _offered(subprotocols: list[str], prefix: str) -> str | None:
    return next((name.removeprefix(prefix) for name in subprotocols if name.startswith(prefix)), None)


def _refuse_key_in_address(scope: Scope) -> None:
    """Addresses end up in logs and histories, so a key in one is refused, even where it would be valid."""
    names = {part.partition("=")[0].lower() for part in scope["query_string"].decode("latin-1").split("&")}
    if found := names & _KEY_PARAMETERS:
        raise AuthenticationFailed(
            "An API key must not be in an address; send it in a header, or use a ticket.", field=sorted(found)[0]
        )


def _address(scope: Scope) -> str:
    """Return the client's address; of IPv6 the network, since one client has all addresses in it."""
    host = (scope.get("client") or ("unknown", 0))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host
