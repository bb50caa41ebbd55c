"""What ends a stream of events ahead of its job, by whichever protocol: slow readers, and keys that are revoked."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from api.dependencies import Keys
from api.errors import SlowReader
from peft_studio.errors import AuthenticationFailed

_KEY_SECONDS = 1.0  # how often it is looked whether the key still holds; the record itself is read less often


@asynccontextmanager
async def read_within(seconds: float) -> AsyncGenerator[None]:
    """Send a message in this block; raises ``SlowReader`` where there is no room for it in time."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise SlowReader(f"No message was read for {seconds:g} s; go on behind the last cursor.") from None


async def wait_for_revocation(keys: Keys, key_id: str) -> None:
    """Wait until a key does not hold any more; raises ``AuthenticationFailed`` then."""
    while await keys.live(key_id) is not None:
        await asyncio.sleep(_KEY_SECONDS)
    raise AuthenticationFailed("The API key was revoked.")


async def until_the_first_ends(*work: Coroutine[Any, Any, None]) -> None:
    """Do several things at once until one of them ends, which decides; raises what that one raised."""
    tasks = [asyncio.create_task(part) for part in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
