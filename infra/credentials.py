"""
Credentials of platforms: where they lie, and how they are read at the moment of use.

They are Prefect blocks, which its server encrypts with a key that lies outside its database.
"""

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Protocol

import httpx
from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import BlockDocument
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.types import SecretDict
from pydantic import BaseModel, ConfigDict, SecretStr

from peft_studio.errors import ResourceUnavailable

_PREFIX = "platform-"
_SECONDS = 15.0
_PAGE = 200


class Connection(BaseModel):
    """That a platform's credentials are stored, without them."""

    model_config = ConfigDict(frozen=True)

    platform: str
    verified_at: datetime
    refused: str | None = None  # why the platform did not take them, when they were last tried


class Credentials(Connection):
    """A platform's credentials; neither ``repr`` nor JSON shows them."""

    values: Mapping[str, SecretStr]

    def reveal(self) -> dict[str, str]:
        """Return the values in clear, for the request they are needed for and nothing else."""
        return {name: value.get_secret_value() for name, value in self.values.items()}


class CredentialStore(Protocol):
    """Where credentials are kept."""

    async def connections(self) -> Mapping[str, Connection]:
        """Say which platforms there are credentials of."""
        ...

    async def get(self, platform: str) -> Credentials | None:
        """Read one platform's credentials."""
        ...

    async def put(self, credentials: Credentials) -> None:
        """Store a platform's credentials in the place of those before."""
        ...

    async def delete(self, platform: str) -> bool:
        """Forget a platform's credentials; tell whether there were any."""
        ...


class CredentialsInMemory:
    """Credentials that end with the process."""

    def __init__(self) -> None:
        self._kept: dict[str, Credentials] = {}

    async def connections(self) -> Mapping[str, Connection]:
        """Say which platforms there are credentials of."""
        return {name: Connection(**kept.model_dump(exclude={"values"})) for name, kept in self._kept.items()}

    async def get(self, platform: str) -> Credentials | None:
        """Read one platform's credentials."""
        return self._kept.get(platform)

    async def put(self, credentials: Credentials) -> None:
        """Store a platform's credentials in the place of those before."""
        self._kept[credentials.platform] = credentials

    async def delete(self, platform: str) -> bool:
        """Forget a platform's credentials; tell whether there were any."""
        return self._kept.pop(platform, None) is not None


class PlatformCredentials(Block):
    """What PEFT Studio knows a platform by; use the API's platforms to change it."""

    _block_type_name = "PEFT Studio platform"
    _block_type_slug = "peft-studio-platform"

    secrets: SecretDict
    verified_at: datetime
    refused: str | None = None


class CredentialsInPrefect:
    """Credentials as encrypted blocks of the Prefect server."""

    async def connections(self) -> Mapping[str, Connection]:
        """Say which platforms there are credentials of."""
        async with _prefect() as client:
            try:
                blocks = await client.read_block_documents_by_type(
                    PlatformCredentials.get_block_type_slug(), limit=_PAGE, include_secrets=False
                )
            except httpx.HTTPStatusError as error:
                if error.response.status_code != 404:
                    raise
                blocks = []  # there is no such type yet: no platform was ever connected
        return {name: Connection.model_validate(_fields(name, block)) for block in blocks if (name := _platform(block))}

    async def get(self, platform: str) -> Credentials | None:
        """Read one platform's credentials."""
        async with _prefect() as client:
            block = await _read(client, platform, include_secrets=True)
        if block is None:
            return None
        values = {name: SecretStr(value) for name, value in block.data["secrets"].items()}
        return Credentials.model_validate({**_fields(platform, block), "values": values})

    async def put(self, credentials: Credentials) -> None:
        """Store a platform's credentials in the place of those before."""
        block = PlatformCredentials(
            secrets=SecretDict(credentials.reveal()),
            verified_at=credentials.verified_at,
            refused=credentials.refused,
        )
        async with _prefect() as client:
            await block.asave(_PREFIX + credentials.platform, overwrite=True, client=client)

    async def delete(self, platform: str) -> bool:
        """Forget a platform's credentials; tell whether there were any."""
        async with _prefect() as client:
            block = await _read(client, platform, include_secrets=False)
            if block is None:
                return False
            try:
                await client.delete_block_document(block.id)
            except ObjectNotFound:
                return False
        return True


def connected_now(names: Collection[str]) -> frozenset[str]:
    """Return those of some platforms that credentials are stored of, for code that runs without an event loop."""
    return frozenset(asyncio.run(CredentialsInPrefect().connections()) if names else ()) & frozenset(names)


@asynccontextmanager
async def _prefect() -> AsyncGenerator[PrefectClient]:
    """
    Open a client; its failures come without their cause.

    The server repeats what it refuses, and an error's text would carry a credential into the log.
    """
    try:
        async with asyncio.timeout(_SECONDS), get_client() as client:
            yield client
    except ObjectNotFound:
        raise
    except httpx.HTTPStatusError as error:
        raise ResourceUnavailable(
            f"The Prefect server answered {error.response.status_code} where credentials lie; see its log."
        ) from None
    except (httpx.TransportError, PrefectException, TimeoutError):
        raise ResourceUnavailable("The Prefect server does not answer; try again in a moment.") from None


async def _read(client: PrefectClient, platform: str, *, include_secrets: bool) -> BlockDocument | None:
    try:
        return await client.read_block_document_by_name(
            _PREFIX + platform, PlatformCredentials.get_block_type_slug(), include_secrets=include_secrets
        )
    except ObjectNotFound:
        return None


def _platform(block: BlockDocument) -> str:
    name = block.name or ""
    return name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else ""


def _fields(platform: str, block: BlockDocument) -> dict[str, Any]:
    return {"platform": platform, "verified_at": block.data["verified_at"], "refused": block.data.get("refused")}
