"""Asking a vendor: how often, how patiently, and what may be asked twice; the same for all of them."""

import asyncio
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from infra.providers.base import Account, Unclear
from infra.vendor_http import Answer, Call, ask
from peft_studio.errors import CredentialRefused, InsufficientCredits, RateLimitExceeded, ResourceUnavailable

PATIENCE_SECONDS = 30.0
CREATE_SECONDS = 45.0  # vendors look for a host before they answer
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 10.0
_MOST_WORDS = 300  # characters

Shape = TypeVar("Shape", bound=BaseModel)


async def read(call: Call, patience: float = PATIENCE_SECONDS) -> Answer:
    """
    Send what may be repeated without harm (looking, releasing) until it is answered; a 5xx is no answer.

    Raises ``RateLimitExceeded`` or ``ResourceUnavailable`` once patience has run out.
    """
    deadline, pause = time.monotonic() + patience, _FIRST_PAUSE_SECONDS
    while True:
        try:
            answer = await ask(call)
            issue: ResourceUnavailable | RateLimitExceeded = ResourceUnavailable(f"It answered {answer.status}.")
        except ResourceUnavailable as error:
            answer, issue = None, error
        if answer is not None and answer.status != 429 and answer.status < 500:
            return answer
        wait = max(pause, (answer.retry_after or 0) if answer else 0)
        if time.monotonic() + wait > deadline:
            raise too_often(answer) if answer and answer.status == 429 else issue
        await asyncio.sleep(wait)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


async def create(call: Call, patience: float = PATIENCE_SECONDS, seconds: float = CREATE_SECONDS) -> Answer:
    """
    Send what must not be done twice, once; what was asked too often was not done, so it is asked again.

    An answer may take so many seconds. Raises ``Unclear`` where none came or the vendor failed, ``RateLimitExceeded``
    once patience has run out.
    """
    deadline, pause = time.monotonic() + patience, _FIRST_PAUSE_SECONDS
    while True:
        try:
            answer = await ask(call, seconds, again=False)
        except ResourceUnavailable as error:
            raise Unclear(error.message) from None
        if answer.status >= 500:
            raise Unclear(f"It answered {answer.status}; whether it has created a machine is not known.")
        if answer.status != 429:
            return answer
        wait = max(pause, answer.retry_after or 0)
        if time.monotonic() + wait > deadline:
            raise too_often(answer)
        await asyncio.sleep(wait)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def too_often(answer: Answer) -> RateLimitExceeded:
    """Return the error of a vendor that is asked too often."""
    return RateLimitExceeded(
        "The vendor is asked too often at the moment (429); try again later.",
        retry_after_seconds=answer.retry_after or int(_LONGEST_PAUSE_SECONDS),
    )


def refused(display_name: str, platform: str, status: int) -> CredentialRefused:
    """Return the error of a vendor that does not take the key (any more)."""
    return CredentialRefused(
        f"{display_name} refused the credentials ({status}): they were revoked or may not do this. Connect it again "
        f"(POST /platforms/{platform}/connect).",
        platform=platform,
    )


def out_of_credit(display_name: str, platform: str) -> InsufficientCredits:
    """Return the error of a vendor that does not rent to an account that cannot pay."""
    return InsufficientCredits(
        f"The account at {display_name} cannot pay for a machine: top it up, then retry the job.", platform=platform
    )


def understood(shape: type[Shape], answer: Answer) -> Shape:
    """Read a successful answer's body; raises ``ResourceUnavailable`` where something else answered."""
    try:
        return shape.model_validate(answer.body)
    except ValidationError:
        raise ResourceUnavailable(
            f"What answered ({answer.status}) is not the vendor's API; check the address of the platform."
        ) from None


def words(said: object, account: Account) -> str:
    """Return what a vendor said on one line, short, and without the account's credentials should it repeat them."""
    return account.without_secrets(" ".join(str(said or "").split()))[:_MOST_WORDS]


def pace(url: str, seconds: float) -> float:
    """Return how far apart calls are to be: vendors on this machine are simulated, and asked as often as one likes."""
    return 0.0 if urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1") else seconds


@asynccontextmanager
async def paced(vendor: str, key: str, seconds: float) -> AsyncGenerator[None]:
    """Keep calls of one kind with one key so many seconds apart, over all processes of this machine."""
    name = hashlib.sha256(f"{vendor}\0{key}".encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"peft-studio-{os.getuid()}-pace-{vendor}-{name}"
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(0.05)
        ahead = path.stat().st_mtime + seconds - time.time() if path.stat().st_size else 0.0
        await asyncio.sleep(max(0.0, min(ahead, seconds)))
        file.truncate(0)
        file.write(".")
        file.flush()
        yield
