"""When a request is sent again, how long to wait before, and what is raised in the end."""

import random

import httpx

from peft_studio import errors
from peft_studio.errors import CredentialRefused, InternalError, StudioError, Unreachable

LONGEST_PAUSE = 60.0
_FIRST_PAUSE = 0.2


def _own_codes() -> dict[str, type[StudioError]]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StudioError)]
    return {kind.code: kind for kind in kinds if "code" in vars(kind)} | {InternalError.code: InternalError}


BY_CODE = _own_codes()


class Tries:
    """
    The attempts at one request.

    Everything is repeated that is not the caller's fault: lost connections, timeouts, 5xx, and 429 after the time that
    the studio asks for. That is safe, for the studio does a POST with the same ``Idempotency-Key`` once.
    """

    def __init__(self, repeats: int):
        self._left = repeats
        self._pause = _FIRST_PAUSE

    def after_answer(self, response: httpx.Response) -> float | None:
        """Return how long to wait before the next attempt, or None where this answer is to be taken."""
        if response.status_code < 500 and response.status_code != 429:
            return None
        wait = _asked_for(response)
        if self._left == 0 or (wait is not None and wait > LONGEST_PAUSE):
            return None
        return self._next(wait)

    def after_loss(self, error: httpx.TransportError) -> float:
        """Return how long to wait before the next attempt; raises ``Unreachable`` where it was the last one."""
        if self._left == 0:
            raise unreachable(error) from error
        return self._next(None)

    def _next(self, wait: float | None) -> float:
        self._left -= 1
        pause, self._pause = self._pause * random.uniform(0.75, 1.25), self._pause * 2
        return pause if wait is None else wait


def unreachable(error: httpx.TransportError) -> Unreachable:
    """Say that nobody answers, and where."""
    url = error.request.url if error._request else None  # pyright: ignore[reportPrivateUsage]
    where = f" at {url.scheme}://{url.netloc.decode()}" if url else ""
    reason = "it did not answer in time" if isinstance(error, httpx.TimeoutException) else str(error)
    return Unreachable(f"The studio{where} cannot be reached: {reason or type(error).__name__}.")


def error_of(response: httpx.Response) -> StudioError:
    """Turn the contract's error body back into the error it came from."""
    try:
        error = response.json()["error"]
        return error_with(error["code"], error["message"], **error["details"])
    except (ValueError, KeyError, TypeError):
        told = f"The server answered {response.status_code} {response.reason_phrase}."
        return Unreachable(told) if response.status_code in (502, 503, 504) else StudioError(told)


def error_with(code: str, message: str, **details: object) -> StudioError:
    """Make the error that has this code; a platform's refusal has that of a bad key, and names the platform."""
    if code == CredentialRefused.code and "platform" in details:
        return CredentialRefused(message, **details)
    return BY_CODE.get(code, StudioError)(message, **details)


def _asked_for(response: httpx.Response) -> float | None:
    """Read ``Retry-After``, which may also be a date, and is then left to our own pauses."""
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None
