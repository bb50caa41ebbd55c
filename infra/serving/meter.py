"""How busy an endpoint is: requests in the last minute, and how long they took."""

import time
from collections import deque
from collections.abc import Callable
from statistics import fmean

from pydantic import BaseModel

WINDOW_SECONDS = 60.0


class Load(BaseModel):
    """Requests answered in the last minute, and their average latency in milliseconds (None without any)."""

    requests_per_minute: int
    avg_latency_ms: float | None


class Meter:
    """Counts answered requests by model."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._answered: deque[tuple[float, str, float]] = deque()

    def count(self, model: str, seconds: float) -> None:
        """Note an answered request."""
        self._forget()
        self._answered.append((self._clock(), model, seconds))

    def load(self, model: str | None = None) -> Load:
        """Sum up the last minute, for one model or for all."""
        self._forget()
        taken = [seconds for _, name, seconds in self._answered if model in (None, name)]
        return Load(requests_per_minute=len(taken), avg_latency_ms=1e3 * fmean(taken) if taken else None)

    def _forget(self) -> None:
        while self._answered and self._answered[0][0] < self._clock() - WINDOW_SECONDS:
            self._answered.popleft()
