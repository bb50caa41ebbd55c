"""
The outermost layer: web pages of other origins, HEAD, and WebSockets to addresses where there is none.

These are accepted, because only then does a client see why they are closed.
"""

from collections.abc import Sequence
from typing import Any

from litestar import Litestar, Request, Response, WebSocket
from litestar.config.cors import CORSConfig
from litestar.datastructures import Headers
from litestar.exceptions import HTTPException, MethodNotAllowedException
from litestar.routes import HTTPRoute
from litestar.types import Message, Receive, Scope, Send
from litestar.utils import normalize_path

from api.errors import closing, read_body, send_error, with_head
from api.parameters import check_query
from peft_studio.errors import NotFound, PermissionDenied

# Headers of answers that scripts in browsers get to see.
EXPOSED = [
    *("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After", "Idempotency-Replayed", "Location"),
    *("Dataset-Id", "Upload-Offset", "Upload-Length", "Upload-Expires", "Tus-Resumable", "Tus-Version"),
]


def cross_origin(origins: Sequence[str]) -> CORSConfig | None:
    """Let the scripts of these web pages call; their browsers' cookies mean nothing here, and are never asked for."""
    if not origins:
        return None
    return CORSConfig(allow_origins=list(origins), allow_credentials=False, expose_headers=EXPOSED)


async def answer_ahead(request: Request[Any, Any, Any]) -> Response[None] | None:
    """Answer what has no route of ours: which methods an address takes; of all else, look at query and body."""
    if request.route_handler.fn.__module__ == HTTPRoute.__module__:
        # Litestar's own answer to OPTIONS knows only the methods of the route that was declared first.
        routes = [route for route in request.app.routes if isinstance(route, HTTPRoute)]
        template = request.scope["path_template"]
        methods = {method for route in routes if route.path_format == template for method in route.methods}
        return Response(None, status_code=204, headers={"Allow": ", ".join(with_head(methods))})
    check_query(request)
    await read_body(request)
    return None


class Entrance:
    """The outermost layer of the application: lets Litestar do what it can, and does the rest."""

    def __init__(self, app: Litestar):
        self._rest = app.asgi_handler
        self._router = app.asgi_router
        self._origins = app.cors_config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        serve = self._serve_socket if scope["type"] == "websocket" else self._serve_request
        await serve(scope, receive, send)

    async def _serve_request(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer HEAD as GET is answered, and refuse to let scripts of strange pages call."""
        origin = Headers.from_scope(scope).get("origin")
        if scope["method"] == "OPTIONS" and origin and self._origins and not self._origins.is_origin_allowed(origin):
            error = PermissionDenied(f"Web pages of {origin[:100]} may not call this API.", field="Origin")
            await send_error(error, scope, receive, send)
        elif scope["method"] == "HEAD" and not self._takes_head(scope["path"]):
            looking: Any = {**scope, "method": "GET"}  # the server's own still says that there is to be no body
            await self._rest(looking, receive, _without_body(send))
        else:
            await self._rest(scope, receive, send)

    def _takes_head(self, path: str) -> bool:
        try:
            self._router.handle_routing(path=normalize_path(path), method="HEAD")
        except MethodNotAllowedException:
            return False
        except HTTPException:  # no such address, which is for the router to say
            pass
        return True

    async def _serve_socket(self, scope: Any, receive: Receive, send: Send) -> None:
        """Accept a WebSocket to an address where there is none, and tell why it is closed."""
        accepted = False

        async def noting(message: Message) -> None:
            nonlocal accepted
            accepted |= message["type"] == "websocket.accept"
            await send(message)

        try:
            await self._router(scope, receive, noting)
        except HTTPException as error:
            if accepted:
                raise
            told = NotFound("There is no WebSocket at this address.") if error.status_code < 500 else error
            code, reason = closing(told, WebSocket(scope, receive, send))
            await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
            await send({"type": "websocket.close", "code": code, "reason": reason})


def _without_body(send: Send) -> Send:
    """Let an answer's head through and end it there; whoever goes on sending a body is not heard."""
    ended = False

    async def send_head(message: Any) -> None:
        nonlocal ended
        if message["type"] == "http.response.start":
            await send(message)
        elif not ended:
            ended = True
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_head
