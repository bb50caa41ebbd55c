"""
``Idempotency-Key`` on every POST: a request that is sent again is not carried out again, but answered as before.

The answer is kept before it is sent. What a killed API has done and not yet kept is the routes' to recognise: they are
given ``idempotency_key``, which is the same whenever the same caller sends the same key.
"""

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

from litestar import Request
from litestar.datastructures import Headers
from litestar.di import NamedDependency, Provide
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.params import SkipValidation
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import send_error
from infra.kept_answers import KeptAnswer, KeptAnswers
from peft_studio.errors import Conflict, InvalidConfig

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
LONGEST_KEY = 200

# What a route says in its ``opt``, where its answer is not to be on disk.
SECRET = {"idempotency": "secret"}  # whoever repeats the request is told that it was carried out
NOT_KEPT = {"idempotency": "not kept"}  # the key is ignored: carrying out the request twice does no harm

# A failure that passes is not an answer, and what a key may do says nothing about the request.
_PASSING = {401, 403, 429}
_LITTLE = 1 << 16  # bytes of a body that are worth reading although nobody looked at them
_STATE = "idempotency_key"

IdempotencyKey = NamedDependency[SkipValidation[str | None]]


class Idempotency(ASGIMiddleware):
    """Answers a POST that was answered before, with the same key by the same caller, with the same bytes."""

    scopes = (ScopeType.HTTP,)
    exclude_opt_key = "public"

    def __init__(self, answers: KeptAnswers):
        self._answers = answers
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Carry the request out, unless that was done already; of two at a time the second waits for the first."""
        handler: Any = scope["route_handler"]
        key = Headers.from_scope(scope).get(HEADER)
        if key is None or scope.get("method") != "POST" or not takes_key(handler.opt):
            await next_app(scope, receive, send)
            return
        if not re.fullmatch(rf"[\x20-\x7e]{{1,{LONGEST_KEY}}}", key):
            issue = f"Must have 1 to {LONGEST_KEY} printable ASCII characters"
            await send_error(InvalidConfig("The request is invalid.", field=HEADER, issue=issue), scope, receive, send)
            return
        name = f"{scope['user'].id}\n{key}"
        scope["state"][_STATE] = hashlib.sha256(name.encode()).hexdigest()
        content = _Content(scope, receive)
        async with self._turn(name):
            if (kept := await self._answers.get(name)) is None:
                if (answer := await _carry_out(next_app, scope, content)) is not None:
                    await self._keep(name, key, scope, content, answer)
                    await answer.send_to(send)
                return
        await content.read_on(handler.resolve_request_max_body_size())
        await _answer_again(kept, _fingerprint(scope, key, content), scope, receive, send)

    def _turn(self, name: str) -> asyncio.Lock:
        lock = self._turns.get(name)
        if lock is None:
            self._turns[name] = lock = asyncio.Lock()
        return lock

    async def _keep(self, name: str, key: str, scope: Scope, content: "_Content", answer: "_Answer") -> None:
        if answer.status >= 500 or answer.status in _PASSING:
            return
        if content.is_little:  # of a request without a body, say, that nobody had a reason to read
            await content.read_on(_LITTLE)
        if not content.is_whole:  # refused before it was all there: a repeated request could not be known again
            return
        holds_secret = scope["route_handler"].opt.get("idempotency") == "secret" and answer.status < 300
        kept = KeptAnswer(
            request=_fingerprint(scope, key, content),
            status=answer.status,
            headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers],
            body=None if holds_secret else answer.body,
        )
        await self._answers.put(name, kept)


class _Content:
    """
    A request's body, hashed as it is read, so that one of any size is known again and never held in memory.

    Of a form, the boundary between its parts does not count: the sender makes it up anew each time.
    """

    def __init__(self, scope: Scope, receive: Receive):
        headers = Headers.from_scope(scope)
        boundary = re.search(r'boundary="?([^";]+)', headers.get("content-type", ""))
        self._boundary = boundary.group(1).encode("latin-1") if boundary else b""
        self._receive = receive
        self._hash = hashlib.sha256()
        self._held = b""  # what may be the beginning of a boundary
        self._size = 0
        self._is_broken_off = False
        self.is_whole = False
        length = headers.get("content-length", "0")
        self.is_little = "transfer-encoding" not in headers and length.isdecimal() and int(length) <= _LITTLE

    async def receive(self) -> Any:
        """Receive a message for the application."""
        message: Any = await self._receive()
        if message["type"] == "http.request":
            self._add(message.get("body", b""))
            self.is_whole = not message.get("more_body", False)
        else:
            self._is_broken_off = True
        return message

    async def read_on(self, most: int | None) -> None:
        """Read to the end, unless that is too far: a client that is still sending would not see its answer."""
        while not self.is_whole and not self._is_broken_off and (most is None or self._size <= most):
            await self.receive()

    def digest(self) -> str:
        """Return the hash of what was read."""
        whole = self._hash.copy()
        whole.update(self._held)
        return whole.hexdigest()

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if not self._boundary:
            self._hash.update(part)
            return
        *before, last = (self._held + part).split(self._boundary)
        for piece in before:
            self._hash.update(piece + b"\n--\n")
        end = max(len(last) - len(self._boundary) + 1, 0)
        self._hash.update(last[:end])
        self._held = last[end:]


class _Answer:
    """An answer that is held back until it is complete."""

    def __init__(self, messages: Sequence[Message]):
        self._messages = messages
        start: Any = next(message for message in messages if message["type"] == "http.response.start")
        self.status: int = start["status"]
        self.headers: list[tuple[bytes, bytes]] = [(key, value) for key, value in start["headers"]]
        bodies: list[Any] = [message for message in messages if message["type"] == "http.response.body"]
        self.body = b"".join(message.get("body", b"") for message in bodies)

    async def send_to(self, send: Send) -> None:
        """Let it go out."""
        for message in self._messages:
            await send(message)


async def _carry_out(app: ASGIApp, scope: Scope, content: _Content) -> _Answer | None:
    messages: list[Message] = []

    async def hold(message: Message) -> None:
        messages.append(message)

    await app(scope, content.receive, hold)
    return _Answer(messages) if messages else None


async def _answer_again(kept: KeptAnswer, request: str, scope: Scope, receive: Receive, send: Send) -> None:
    if kept.request != request:
        error = Conflict(f"This {HEADER} was used before, for another request; choose a new one.", field=HEADER)
    elif kept.body is None:
        error = Conflict(
            f"The request with this {HEADER} was carried out before; its answer held a secret and was not kept.",
            field=HEADER,
        )
    else:
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in kept.headers]
        headers.append((REPLAYED.lower().encode(), b"true"))
        await send({"type": "http.response.start", "status": kept.status, "headers": headers})
        await send({"type": "http.response.body", "body": kept.body, "more_body": False})
        return
    await send_error(error, scope, receive, send)


def _fingerprint(scope: Scope, key: str, content: _Content) -> str:
    """Return a hash by which the same request is known again; the key in it makes it useless for guessing bodies."""
    headers = Headers.from_scope(scope)
    upload = [headers.get(name, "") for name in ("upload-length", "upload-metadata")]  # they say what is to be sent
    parts = (key, "POST", scope["path"], scope["query_string"].decode("latin-1"), *upload, content.digest())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def provide_idempotency_key() -> Provide:
    """Give routes the caller's key, made one with who is calling; None where the request has none."""

    def given(request: Request[Any, Any, Any]) -> str | None:
        return request.scope["state"].get(_STATE)

    return Provide(given, sync_to_thread=False)


def takes_key(opt: Mapping[str, Any]) -> bool:
    """Tell from a POST route's ``opt`` whether it heeds the key."""
    return not opt.get("public") and opt.get("idempotency") != NOT_KEPT["idempotency"]
