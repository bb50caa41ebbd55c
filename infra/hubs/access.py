"""Where a source of models is and what it is asked with, looked up at the moment of use."""

import asyncio

from infra.credentials import CredentialStore
from infra.platforms.connections import base_url
from infra.platforms.vendors import VENDORS
from infra.settings import Settings
from peft_studio.errors import ResourceUnavailable

_SECONDS = 1.0


async def values_of(platform: str, credentials: CredentialStore) -> dict[str, str]:
    """Return a platform's credentials; none where it is not connected, or that cannot be found out quickly."""
    try:
        async with asyncio.timeout(_SECONDS):
            kept = await credentials.get(platform)
    except (TimeoutError, ResourceUnavailable):
        return {}  # what is public can still be searched
    return kept.reveal() if kept else {}


async def address_of(platform: str, credentials: CredentialStore, settings: Settings) -> str:
    """Return a platform's address."""
    return base_url(VENDORS[platform], settings, await values_of(platform, credentials))
