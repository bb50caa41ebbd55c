"""API keys: made, listed and revoked in Prefect's database (as variables), and recognised by the API."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Literal, get_args

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from prefect.client.schemas.objects import Variable
from prefect.exceptions import PrefectException
from pydantic import BaseModel, ConfigDict, Field

from infra.key_use import KeyUse, read_last_uses
from infra.prefect_database import PrefectDatabase
from peft_studio.errors import Conflict, InvalidConfig, NotFound, ResourceUnavailable

Role = Literal["read", "write", "admin"]

PREFIX = "ps_"
TAG = "peft-studio-api-key"
_VARIABLE = "api_key_"
_PAGE = 200
_PREFECT_SECONDS = 10.0


class ApiKey(BaseModel):
    """What is known of a key; the key itself is known to its holder alone."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    role: Role
    created_at: datetime
    revoked_at: datetime | None = None
    last_used_at: datetime | None = Field(default=None, description="Up to a minute before the last use.")


class KeyRecord(ApiKey):
    """A key as stored: with the SHA-256 of the secret."""

    sha256: str


async def create(name: str, role: Role = "admin") -> tuple[ApiKey, str]:
    """Make a key; return what is known of it, and the secret, which is nowhere kept."""
    check_key(name, role)
    if any(key.name == name and key.revoked_at is None for key in await read_records()):
        raise Conflict(f"There is a key named {name!r} already; revoke it first or choose another name.", field="name")
    secret = PREFIX + secrets.token_urlsafe(32)
    record = KeyRecord(
        id=secrets.token_hex(6), name=name, role=role, created_at=datetime.now(UTC), sha256=digest(secret)
    )
    async with get_client() as client:
        await client.create_variable(
            VariableCreate(name=_VARIABLE + record.id, value=record.model_dump(mode="json"), tags=[TAG])
        )
    return _public(record), secret


async def list_keys() -> list[ApiKey]:
    """Return all keys, oldest first, revoked ones too."""
    records, uses = await asyncio.gather(read_records(), read_last_uses())
    return [_public(record).model_copy(update={"last_used_at": uses.get(record.id)}) for record in records]


async def revoke(name_or_id: str, *, by_name: bool = True) -> ApiKey:
    """Make a live key useless, for good; its name may then be given to another."""
    live = [record for record in await read_records() if record.revoked_at is None]
    for record in sorted(live, key=lambda record: record.id != name_or_id):  # a name may look like another key's id
        if name_or_id == record.id or (by_name and name_or_id == record.name):
            revoked = record.model_copy(update={"revoked_at": datetime.now(UTC)})
            async with get_client() as client:
                await client.update_variable(
                    VariableUpdate(name=_VARIABLE + record.id, value=revoked.model_dump(mode="json"))
                )
            return _public(revoked)
    raise NotFound(f"There is no live key {name_or_id!r}; `peft-studio keys list` shows all.", field="name")


async def read_records() -> list[KeyRecord]:
    """Read all keys as stored, oldest first."""
    records: list[KeyRecord] = []
    async with get_client() as client:
        while len(records) % _PAGE == 0:
            query = {"variables": {"tags": {"all_": [TAG]}}, "sort": "NAME_ASC", "limit": _PAGE, "offset": len(records)}
            response = await client.request("POST", "/variables/filter", json=query)
            page = Variable.model_validate_list(response.json())
            records += [KeyRecord.model_validate(variable.value) for variable in page]
            if not page:
                break
    return sorted(records, key=lambda record: record.created_at)


def records_in(database: PrefectDatabase) -> Callable[[], Awaitable[Sequence[KeyRecord]]]:
    """Return a way to read all keys from Prefect's database."""

    async def read() -> Sequence[KeyRecord]:
        return [KeyRecord.model_validate(value) for value in (await database.variables(TAG)).values()]

    return read


class KeyRing:
    """
    The live keys, as the API's process knows them.

    What is known is at most ``max_age`` seconds old, so that a revoked key stops working within that time. A key not
    known is looked for at once, since it may be new, but not more often than every ``pause`` seconds. While keys
    cannot be read, those last known stay in force, and of others nothing is said.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[Sequence[KeyRecord]]] = read_records,
        use: KeyUse | None = None,
        *,
        max_age: float = 5.0,
        pause: float = 0.25,
        patience: float = 2.0,
    ):
        self._read = read
        self._use = use or KeyUse()
        self._max_age = max_age
        self._pause = pause
        self._patience = patience
        self._keys: Mapping[str, ApiKey] = {}
        self._read_at = float("-inf")
        self._is_current = False
        self._reading = asyncio.Lock()
        self._creating = asyncio.Lock()

    async def authenticate(self, secret: str, *, search: bool = True) -> ApiKey | None:
        """
        Return the live key whose secret this is; raises ``ResourceUnavailable`` where that cannot be found out.

        Without ``search``, a key made in the last ``max_age`` seconds may not be recognised yet.
        """
        now = time.monotonic()
        await self._refresh(since=now - self._max_age)
        # Only hashes are compared: how long that takes says nothing about the secret.
        key = self._keys.get(digest(secret))
        if key is None and search and secret.startswith(PREFIX):
            await self._refresh(since=now)
            key = self._keys.get(digest(secret))
            if key is None and not self._is_current:
                raise ResourceUnavailable("API keys cannot be checked at the moment; try again in some seconds.")
        if key is not None:
            self._use.note(key.id)
        return key

    async def live(self, key_id: str) -> ApiKey | None:
        """Return the live key with this id, None where there is none (any longer)."""
        await self._refresh(since=time.monotonic() - self._max_age)
        return next((key for key in self._keys.values() if key.id == key_id), None)

    async def list(self) -> Sequence[ApiKey]:
        """Return all keys, oldest first, revoked ones too, with their last uses."""
        async with _reachable():
            keys = await list_keys()
        return [key.model_copy(update={"last_used_at": self._use.seen.get(key.id, key.last_used_at)}) for key in keys]

    async def create(self, name: str, role: Role) -> tuple[ApiKey, str]:
        """Make a key; return what is known of it, and the secret."""
        async with self._creating, _reachable():  # one at a time, so that two never get the same name
            return await create(name, role)

    async def revoke(self, key_id: str) -> ApiKey:
        """Make a live key useless, at once."""
        async with _reachable():
            key = await revoke(key_id, by_name=False)
        self._keys = {sha256: other for sha256, other in self._keys.items() if other.id != key.id}
        self._read_at = float("-inf")
        return key

    async def close(self) -> None:
        """Write down what is known of the keys' use."""
        await self._use.close()

    async def _refresh(self, since: float) -> None:
        """See to it that reading was last tried after ``since``; many callers share one attempt."""
        if self._read_at >= since:
            return
        async with self._reading:
            if self._read_at >= since:
                return
            await asyncio.sleep(self._read_at + self._pause - time.monotonic())
            self._read_at = time.monotonic()
            try:
                async with asyncio.timeout(self._patience):
                    records = await self._read()
            except (TimeoutError, httpx.HTTPError, PrefectException, ResourceUnavailable):
                self._is_current = False
                return
            self._is_current = True
            self._keys = {record.sha256: _public(record) for record in records if record.revoked_at is None}


@asynccontextmanager
async def _reachable() -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(_PREFECT_SECONDS):
            yield
    except (TimeoutError, httpx.HTTPError) as error:
        raise ResourceUnavailable("The Prefect server, which keeps the keys, does not answer; try again.") from error


def _public(record: KeyRecord) -> ApiKey:
    return ApiKey.model_validate(record.model_dump(exclude={"sha256"}))


def digest(secret: str) -> str:
    """Return what is stored in the secret's place: it is 256 random bits, so a plain SHA-256 cannot be guessed back."""
    return hashlib.sha256(secret.encode()).hexdigest()


def check_key(name: str, role: str) -> None:
    """Refuse a name or a role that no key can have."""
    if not 1 <= len(name) <= 64 or not name.isprintable() or name != name.strip():
        issue = "Must have 1 to 64 printable characters, and no blank at either end"
        raise InvalidConfig(
            "A key's name is 1 to 64 printable characters, no blank at either end.", field="name", issue=issue
        )
    if role not in get_args(Role):
        choices = ", ".join(get_args(Role))
        raise InvalidConfig(f"A key's role is one of {choices}.", field="role", issue=f"Must be one of {choices}")
