"""How much one API key may do: requests a minute, and WebSockets at a time. Counted within this process."""

import math
import time
from collections import Counter, deque
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import send_error
from peft_studio.errors import RateLimitExceeded

WINDOW_SECONDS = 60.0


@dataclass(frozen=True)
class Quota:
    """What is left to a key; ``reset`` is the seconds until it may do one request more than now."""

    admitted: bool
    remaining: int
    reset: int


class RequestLog:
    """The times of each key's requests within the last minute: the limit holds for every such window."""

    def __init__(self, per_minute: int):
        self.per_minute = per_minute
        self._times: dict[str, deque[float]] = {}

    def admit(self, key_id: str, now: float) -> Quota:
        """Count a request, unless the key has used up its minute."""
        times = self._times.setdefault(key_id, deque())
        while times and times[0] <= now - WINDOW_SECONDS:
            times.popleft()
        if admitted := len(times) < self.per_minute:
            times.append(now)
        return Quota(admitted, self.per_minute - len(times), math.ceil(times[0] + WINDOW_SECONDS - now))


class RateLimit(ASGIMiddleware):
    """Refuses requests beyond the limit, and tells every caller how much is left."""

    scopes = (ScopeType.HTTP,)
    exclude_opt_key = "public"

    def __init__(self, per_minute: int):
        self._log = RequestLog(per_minute)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Count the request of ``scope["user"]``."""
        quota = self._log.admit(scope["user"].id, time.monotonic())

        async def send_with_quota(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableScopeHeaders.from_message(message)
                headers["RateLimit-Limit"] = str(self._log.per_minute)
                headers["RateLimit-Remaining"] = str(quota.remaining)
                headers["RateLimit-Reset"] = str(quota.reset)
            await send(message)

        if quota.admitted:
            await next_app(scope, receive, send_with_quota)
        else:
            error = RateLimitExceeded(
                f"This API key may make {self._log.per_minute} requests a minute; try again in {quota.reset} s.",
                retry_after_seconds=quota.reset,
            )
            await send_error(error, scope, receive, send_with_quota)


class OpenSockets:
    """The WebSockets that each key holds open."""

    def __init__(self, per_key: int):
        self._per_key = per_key
        self._open: Counter[str] = Counter()

    @contextmanager
    def held(self, key_id: str) -> Generator[None]:
        """Count one more for as long as the block lasts; raises ``RateLimitExceeded`` where that is too many."""
        if self._open[key_id] >= self._per_key:
            raise RateLimitExceeded(f"This API key already holds {self._per_key} WebSockets open; close one first.")
        self._open[key_id] += 1
        try:
            yield
        finally:
            self._open[key_id] -= 1
            if not self._open[key_id]:
                del self._open[key_id]
