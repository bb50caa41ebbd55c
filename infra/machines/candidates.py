"""Which offers a job takes, in order."""

import asyncio

from infra.credentials import CredentialStore
from infra.machines.accounts import connected_providers, provider_of
from infra.providers.base import Offer
from infra.settings import Settings
from peft_studio.errors import StudioError
from peft_studio.plan import Plan


def candidates(
    plan: Plan, settings: Settings, credentials: CredentialStore, *, anywhere: bool = False, beyond_gb: float = 0.0
) -> list[Offer]:
    """Return live offers."""
    return asyncio.run(_candidates(plan, settings, credentials, anywhere, beyond_gb))


async def _candidates(
    plan: Plan, settings: Settings, credentials: CredentialStore, anywhere: bool, beyond_gb: float
) -> list[Offer]:
    config = plan.config
    names = await connected_providers(credentials) if anywhere else [config.provider]
    found: list[Offer] = []
    for name in names:
        try:
            found += await (await provider_of(name, settings, credentials)).offers()
        except StudioError:
            if name == config.provider:
                raise
    named = None if config.resource_id in (None, "auto") or anywhere else config.resource_id
    fitting = [
        one
        for one in found
        if one.available
        and one.spot == config.spot
        and named in (None, one.resource_id)
        and (one.vram_gb or 0) > beyond_gb
    ]
    return sorted(fitting, key=lambda one: one.hourly_rate)
