"""Machines to train on, one module per vendor."""

from infra.providers.base import Provider
from infra.providers.local import LocalProvider
from peft_studio.errors import PlatformNotConnected

PROVIDERS: dict[str, Provider] = {"local": LocalProvider()}


def provider(name: str) -> Provider:
    """Return the provider of that name; raises ``PlatformNotConnected`` where there is none."""
    try:
        return PROVIDERS[name]
    except KeyError:
        raise PlatformNotConnected(f"The platform {name!r} is not connected.", field="provider") from None
