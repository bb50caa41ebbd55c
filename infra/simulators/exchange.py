"""Requests and replies of simulators: as little of HTTP as they need, HEAD and ranges included."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

App = Callable[[Any, Any, Any], Awaitable[None]]


@dataclass(frozen=True)
class Asked:
    """A request; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    content: bytes
    raw_query: str = ""

    def values(self, name: str) -> list[str]:
        """Return every value of a parameter that may be given more than once."""
        return parse_qs(self.raw_query).get(name, [])

    @property
    def token(self) -> str:
        """The bearer token."""
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    @property
    def origin(self) -> str:
        """Where the request was sent."""
        return f"http://{self.headers['host']}"


@dataclass(frozen=True)
class Reply:
    """An answer; ``body`` is JSON unless it is bytes. A header without a value is left out."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


def application(answer: Callable[[Asked], Awaitable[Reply]]) -> App:
    """Make an ASGI application of a function."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        content, more = b"", True
        while more:
            message = await receive()
            content, more = content + message.get("body", b""), message.get("more_body", False)
        raw = scope["query_string"].decode()
        query = {name: values[0] for name, values in parse_qs(raw).items()}
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        reply = await answer(Asked(scope["method"], scope["path"], query, headers, content, raw))
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        lower = {name.lower(): value for name, value in reply.headers.items()}
        told = {"content-type": "application/json", "content-length": str(len(body)), **lower}
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in told.items() if value]
        await send({"type": "http.response.start", "status": reply.status, "headers": encoded})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return app
