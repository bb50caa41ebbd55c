"""
When each API key was last used: noted in memory with every request, written to Prefect's database now and then.

It has a variable of its own beside the key's: rewriting the key's could undo that it was revoked in the meantime.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from prefect.client.schemas.objects import Variable
from prefect.exceptions import PrefectException

TAG = "peft-studio-api-key-use"
_VARIABLE = "api_key_use_"
_PAGE = 200
_CLOSE_SECONDS = 1.0  # the studio's supervisor does not wait much longer
log = logging.getLogger(__name__)


async def read_last_uses() -> dict[str, datetime]:
    """Read when each key was last used, by the key's id."""
    uses: dict[str, datetime] = {}
    async with get_client() as client:
        for offset in range(0, 1_000_000, _PAGE):
            query = {"variables": {"tags": {"all_": [TAG]}}, "sort": "NAME_ASC", "limit": _PAGE, "offset": offset}
            response = await client.request("POST", "/variables/filter", json=query)
            page = Variable.model_validate_list(response.json())
            for variable in page:
                uses[variable.name.removeprefix(_VARIABLE)] = datetime.fromisoformat(str(variable.value))
            if len(page) < _PAGE:
                break
    return uses


async def write_last_uses(uses: Mapping[str, datetime]) -> None:
    """Write when keys were last used."""
    async with get_client() as client:
        for key_id, at in uses.items():
            name, value = _VARIABLE + key_id, at.isoformat()
            try:
                await client.update_variable(VariableUpdate(name=name, value=value))
            except httpx.HTTPStatusError as error:
                if error.response.status_code != 404:
                    raise
                await client.create_variable(VariableCreate(name=name, value=value, tags=[TAG]))


class KeyUse:
    """
    The last uses that this process has seen.

    One is written when the one written before is ``every`` seconds old, so that what is stored is never further off
    than that; uses of other keys that come within ``gather`` seconds are written along with it.
    """

    def __init__(
        self,
        write: Callable[[Mapping[str, datetime]], Awaitable[None]] = write_last_uses,
        *,
        every: float = 60.0,
        gather: float = 2.0,
    ):
        self._write = write
        self._every = timedelta(seconds=every)
        self._gather = gather
        self.seen: dict[str, datetime] = {}
        self._written: dict[str, datetime] = {}
        self._writing: asyncio.Task[None] | None = None

    def note(self, key_id: str) -> None:
        """Take note that a key was used; returns at once."""
        self.seen[key_id] = at = datetime.now(UTC)
        due = key_id not in self._written or at - self._written[key_id] >= self._every
        if due and (self._writing is None or self._writing.done()):
            self._writing = asyncio.create_task(self._write_soon())

    async def close(self) -> None:
        """Write what is not written yet, if that can be done within a second."""
        if self._writing is not None:
            self._writing.cancel()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._flush(timedelta())
        except TimeoutError:
            log.warning("When API keys were last used could not be written in time.")

    async def _write_soon(self) -> None:
        await asyncio.sleep(self._gather)
        await self._flush(self._every)

    async def _flush(self, age: timedelta) -> None:
        """Write the uses that are news: their key's last one written is at least so much older."""
        news = {
            key_id: at
            for key_id, at in self.seen.items()
            if key_id not in self._written or (at > self._written[key_id] and at - self._written[key_id] >= age)
        }
        before = dict(self._written)
        self._written |= news  # also where it fails: it is tried again in a minute, not with every request
        try:
            if news:
                await self._write(news)
        except (httpx.HTTPError, PrefectException) as error:
            log.warning("When API keys were last used cannot be written: %s", error)
        except asyncio.CancelledError:
            self._written = before
            raise
