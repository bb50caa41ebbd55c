"""Calls to Prefect: its server, or the database behind it, may be away for a while, in a long job's life above all."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import httpx

from peft_studio.errors import ResourceUnavailable

T = TypeVar("T")
PATIENCE_SECONDS = 120.0
_PAUSE_SECONDS = 1.0
_ANSWER_SECONDS = 20.0  # Prefect's client tries again by itself; a restarting server is back long before

log = logging.getLogger(__name__)


@asynccontextmanager
async def answering(seconds: float = _ANSWER_SECONDS) -> AsyncGenerator[None]:
    """Turn a Prefect server that is away, slow or failing into ``ResourceUnavailable``."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except (httpx.TransportError, TimeoutError) as error:
        raise ResourceUnavailable("The Prefect server does not answer; try again in a moment.") from error
    except httpx.HTTPStatusError as error:
        if error.response.status_code < 500:
            raise
        raise ResourceUnavailable("The Prefect server is failing; see its log, then try again.") from error


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
