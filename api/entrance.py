"""
The outermost layer: web pages of other origins, and WebSockets to addresses where there is none.

These are accepted, because only then does a client see why they are closed.
"""

from collections.abc import Sequence
from typing import Any

from litestar import Litestar, Request, Response, WebSocket
from litestar.config.cors import CORSConfig
from litestar.exceptions import HTTPException
from litestar.routes import HTTPRoute
from litestar.types import Message, Receive, Scope, Send

from api.errors import closing, read_body
from peft_studio.errors import NotFound

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
    """Answer what has no route of ours: which methods an address takes; of all else, look at the body."""
    if request.route_handler.fn.__module__ == HTTPRoute.__module__:
        # Litestar's own answer to OPTIONS knows only the methods of the route that was declared first.
        routes = [route for route in request.app.routes if isinstance(route, HTTPRoute)]
        template = request.scope["path_template"]
        methods = {method for route in routes if route.path_format == template for method in route.methods}
        return Response(None, status_code=204, headers={"Allow": ", ".join(sorted(methods))})
    await read_body(request)
    return None


class Entrance:
    """The outermost layer of the application: routes requests as ever, and WebSockets with an answer for each."""

    def __init__(self, app: Litestar):
        self._requests = app.asgi_handler
        self._sockets = app.asgi_router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "websocket":
            await self._requests(scope, receive, send)
            return
        accepted = False

        async def noting(message: Message) -> None:
            nonlocal accepted
            accepted |= message["type"] == "websocket.accept"
            await send(message)

        try:
            await self._sockets(scope, receive, noting)
        except HTTPException as error:
            if accepted:
                raise
            told = NotFound("There is no WebSocket at this address.") if error.status_code < 500 else error
            code, reason = closing(told, WebSocket(scope, receive, send))
            await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
            await send({"type": "websocket.close", "code": code, "reason": reason})
