"""Providers with the credentials they need, read at the moment of use."""

from collections.abc import Collection

from infra.credentials import CredentialStore
from infra.platforms.connections import base_url, not_connected
from infra.platforms.vendors import VENDORS
from infra.providers import PROVIDERS
from infra.providers.base import Account, Provider
from infra.rendezvous.reach import require_reachable
from infra.settings import Settings


async def provider_of(platform: str, settings: Settings, credentials: CredentialStore) -> Provider:
    """Return a platform's provider for one piece of work; raises ``PlatformNotConnected``."""
    kept = await credentials.get(platform) if platform in PROVIDERS else None
    if kept is None:
        raise not_connected(VENDORS[platform], "provider")
    values = kept.reveal()
    return PROVIDERS[platform](Account(base_url(VENDORS[platform], settings, values), values))


async def require_way_back(platform: str, settings: Settings, credentials: CredentialStore) -> None:
    """Raise ``ResourceUnavailable`` where a connected platform's machines could not come back to the studio."""
    kept = await credentials.get(platform)
    if kept is not None:
        values, vendor = kept.reveal(), VENDORS[platform]
        require_reachable(vendor.display_name, base_url(vendor, settings, values) or values.get("hosts", ""), settings)


async def connected_providers(credentials: CredentialStore) -> Collection[str]:
    """Name the platforms that machines can be rented from right now."""
    return sorted(set(await credentials.connections()) & PROVIDERS.keys())
