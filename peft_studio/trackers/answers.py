"""Answers of trackers that are asked over HTTP: what they mean for whoever sends."""

from typing import Any

import httpx

from peft_studio.trackers.contract import TrackerUnavailable

SECONDS = 20.0


def ask(client: httpx.Client, method: str, url: str, **content: Any) -> Any:
    """Return an answer's JSON; raises ``TrackerUnavailable``, whose text repeats nothing that was sent."""
    try:
        answer = client.request(method, url, **content)
    except httpx.HTTPError as error:
        raise TrackerUnavailable(f"it cannot be reached ({type(error).__name__})") from None
    check(answer.status_code)
    try:
        return answer.json()
    except ValueError:
        raise TrackerUnavailable("what answers there is something else") from None


def check(status: int) -> None:
    """Raise ``TrackerUnavailable`` for a status that means that nothing was taken."""
    if status in (401, 403):
        raise TrackerUnavailable(f"it refuses the credentials ({status})", refused=True)
    if status == 429:
        raise TrackerUnavailable("it is asked too often at the moment (429)")
    if status >= 300:
        raise TrackerUnavailable(f"it answered {status}")
