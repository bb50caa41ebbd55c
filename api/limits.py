"""How much one API key may do: requests a minute, and WebSockets at a time. Counted within this process."""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import send_error
from peft_studio.errors import RateLimitExceeded

WINDOW_SECONDS = 60.0
MOST_CALLERS = 10_000  # that are remembered at a time; addresses cost nothing to make up


@dataclass(frozen=True)
class Quota:
    """What is left to a key; ``reset`` is the seconds until it may do one request more than now."""

    admitted: bool
    remaining: int
    reset: int


class RequestLog:
    """The times of each caller's requests within the last minute: the limit holds for every such window."""

    def __init__(self, per_minute: int):
        self.per_minute = per_minute
        self._times: dict[str, deque[float]] = {}  # whoever was counted last comes last

    def admit(self, caller: str, now: float) -> Quota:
        """Count a request, unless its caller has used up the minute."""
        times = self._recent(caller, now)
        if admitted := len(times) < self.per_minute:
            times.append(now)
            self._times.pop(caller, None)
            self._times[caller] = times
            self._forget_idle(now)
        return Quota(admitted, self.per_minute - len(times), math.ceil(times[0] + WINDOW_SECONDS - now))

    def has_room(self, caller: str, now: float) -> bool:
        """Tell whether one more request would be admitted, without counting one."""
        return len(self._recent(caller, now)) < self.per_minute

    def _recent(self, caller: str, now: float) -> deque[float]:
        times = self._times.get(caller, deque())
        while times and times[0] <= now - WINDOW_SECONDS:
            times.popleft()
        return times

    def _forget_idle(self, now: float) -> None:
        """Let go of callers that have been silent for a minute; of the others, if there are very many, too."""
        while self._times:
            caller, times = next(iter(self._times.items()))
            if times and times[-1] > now - WINDOW_SECONDS and len(self._times) <= MOST_CALLERS:
                break
            del self._times[caller]


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
    """
    The WebSockets and event streams that each key holds open.

    ``send_seconds`` is how long one may go without reading, ``ping_seconds`` how long an event stream may be silent.
    """

    def __init__(self, per_key: int, send_seconds: float = 10.0, ping_seconds: float = 20.0):
        self.send_seconds = send_seconds
        self.ping_seconds = ping_seconds
        self._per_key = per_key
        self._open: Counter[str] = Counter()

    @contextmanager
    def held(self, key_id: str) -> Generator[None]:
        """Count one more for as long as the block lasts; raises ``RateLimitExceeded`` where that is too many."""
        if self._open[key_id] >= self._per_key:
            raise RateLimitExceeded(
                f"This API key already holds {self._per_key} WebSockets or event streams open; close one first."
            )
        self._open[key_id] += 1
        try:
            yield
        finally:
            self._open[key_id] -= 1
            if not self._open[key_id]:
                del self._open[key_id]


class Shared:
    """Something that is found out once for all who ask while it is, however many they are."""

    def __init__(self, find_out: Callable[[], Coroutine[Any, Any, None]]):
        self._find_out = find_out
        self._finding: asyncio.Task[None] | None = None

    async def __call__(self) -> None:
        """Find out, or wait with the others; raises what there is to raise."""
        if self._finding is None or self._finding.done():
            self._finding = asyncio.create_task(self._find_out())
            self._finding.add_done_callback(lambda found: found.cancelled() or found.exception())
        await asyncio.shield(self._finding)
