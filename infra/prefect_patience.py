"""A job's own calls to Prefect: its server, or the database behind it, may be away for a while in a long job's life."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import httpx

T = TypeVar("T")
PATIENCE_SECONDS = 120.0
_PAUSE_SECONDS = 1.0

log = logging.getLogger(__name__)


def insist(call: Callable[[], T], patience: float = PATIENCE_SECONDS, pause: float = _PAUSE_SECONDS) -> T:
    """
    Call until it works, for what a job cannot do without; a call that is repeated must do no harm.

    Prefect's client tries again by itself where the server is away or says that it is. It does not where the server
    fails because its database is restarting: that is a 500 like any other.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return call()
        except httpx.HTTPError as error:
            if not _passes(error) or time.monotonic() > deadline:
                raise
            log.warning("Prefect does not answer as it should (%s); asking again", error)
            time.sleep(pause)


def attempt(call: Callable[[], object]) -> None:
    """Call once, for what is only shown: a job does not fail because nobody could be told how it is getting on."""
    try:
        call()
    except httpx.HTTPError as error:
        log.warning("Prefect was not told (%s)", error)


def _passes(error: httpx.HTTPError) -> bool:
    return not isinstance(error, httpx.HTTPStatusError) or error.response.status_code >= 500
