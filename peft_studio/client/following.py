"""Following a job over its WebSocket: where the follower is, and what a lost connection means."""

import time
from urllib.parse import quote, urlencode

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.frames import Close

from peft_studio.client.retrying import error_with
from peft_studio.errors import StudioError, Unreachable
from peft_studio.events import Event, Status, parse_event

RECONNECT_SECONDS = 60.0
_PAUSE_SECONDS = 0.5
_SLOW_READER = 4408
LOST = (OSError, ConnectionClosed, InvalidHandshake)
"""What is raised where a connection cannot be made or does not last."""


class Trail:
    """A follower's way through the events of a job, over any number of connections."""

    def __init__(self, url: str, job_id: str, after: str | None):
        self._url = f"{url.replace('http', 'ws', 1)}/ws/jobs/{quote(job_id, safe='')}"
        self._cursor = after
        self._deadline = time.monotonic() + RECONNECT_SECONDS
        self.ended = False

    @property
    def address(self) -> str:
        """Where to connect in order to go on behind the last event."""
        return f"{self._url}?{urlencode({'after': self._cursor})}" if self._cursor else self._url

    def take(self, message: str | bytes) -> Event:
        """Read the next event."""
        self._deadline = time.monotonic() + RECONNECT_SECONDS
        event = parse_event(message)
        self._cursor = event.cursor or self._cursor
        self.ended = isinstance(event, Status) and event.status.is_final
        return event

    def pause(self, lost: Exception) -> float:
        """Return how long to wait before connecting again; raises where that would not help, or has not for long."""
        if refused := _refusal(lost):
            raise refused from lost
        if time.monotonic() > self._deadline:
            raise Unreachable(f"The studio has been away for {RECONNECT_SECONDS:.0f} s: {lost}.") from lost
        return _PAUSE_SECONDS


def _refusal(lost: Exception) -> StudioError | None:
    """Tell a refusal, which would come again, from a server that is away for a moment."""
    match lost:
        case ConnectionClosed(rcvd=Close(code=code, reason=reason)) if 4400 <= code < 4500 and code != _SLOW_READER:
            name, _, message = reason.partition(": ")
            return error_with(name, message or reason)
        case InvalidStatus(response=response) if response.status_code < 500:
            return StudioError(f"The server answered {response.status_code} {response.reason_phrase} to a WebSocket.")
        case _:
            return None
