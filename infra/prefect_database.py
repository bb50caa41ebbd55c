"""
Prefect's PostgreSQL database: read directly, never written.

Whatever changes a record goes through the Prefect server, which is one process and has runs to orchestrate. Reading
is what an API does most, and needs nothing from it: see ``docs/decisions/005-reads-go-to-the-database.md``.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg
from pydantic import SecretStr
from pydantic_core import from_json, to_json

from infra.database_url import for_asyncpg
from peft_studio.errors import ResourceUnavailable

T = TypeVar("T")
_CONNECTIONS = 8
_STATEMENT_SECONDS = 10.0
_PATIENCE_SECONDS = 15.0  # a database that restarts is back long before
_PAUSE_SECONDS = 0.1
# What a database that is away, starting or stopping answers; reading again is always safe.
_PASSING = (
    *(OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError),
    *(asyncpg.OperatorInterventionError, asyncpg.InsufficientResourcesError),
)
_SESSION = {
    "application_name": "peft-studio-api",
    "default_transaction_read_only": "on",
    # Which index serves depends on the values: few of 100,000 jobs are running, nearly all are completed.
    "plan_cache_mode": "force_custom_plan",
}


class PrefectDatabase:
    """A few connections that can only read; one instance serves a whole process."""

    def __init__(self, url: SecretStr | None):
        self._url = url
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()

    async def fetch(self, query: str, *values: Any) -> list[asyncpg.Record]:
        """Return the rows of a query; raises ``ResourceUnavailable`` where the database stays away."""

        async def fetch() -> list[asyncpg.Record]:
            return await (await self._connected()).fetch(query, *values)

        return await _patiently(fetch)

    async def variables(self, tag: str) -> dict[str, Any]:
        """Return the values of all Prefect variables with a tag, by their names."""
        query = "SELECT name, value::text AS value FROM variable WHERE tags @> $1::text::jsonb"
        return {row["name"]: from_json(row["value"]) for row in await self.fetch(query, to_json([tag]).decode())}

    async def close(self) -> None:
        """Let go of the connections."""
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None

    async def _connected(self) -> "asyncpg.Pool":
        async with self._opening:
            if self._pool is None:
                if self._url is None:
                    raise ResourceUnavailable(
                        "The API reads jobs from Prefect's database: set PEFT_STUDIO_DATABASE_URL to its address."
                    )
                self._pool = await asyncpg.create_pool(
                    for_asyncpg(self._url.get_secret_value()),
                    min_size=1,
                    max_size=_CONNECTIONS,
                    timeout=_STATEMENT_SECONDS,
                    command_timeout=_STATEMENT_SECONDS,
                    server_settings=_SESSION,
                )
            return self._pool


async def _patiently(read: Callable[[], Awaitable[T]]) -> T:
    """Read; where the database is away for a moment, read again."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return await read()
        except _PASSING as error:
            if isinstance(error, ValueError):  # of a value that cannot be sent, which will not pass
                raise
            if time.monotonic() > deadline:
                raise ResourceUnavailable("The database does not answer; try again in a moment.") from error
            await asyncio.sleep(_PAUSE_SECONDS)
