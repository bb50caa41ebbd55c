"""Which offers a job takes, in order."""

import asyncio

from infra.credentials import CredentialStore
from infra.machines.accounts import connected_providers, provider_of
from infra.planning import measured_speeds
from infra.planning.estimates import rank
from infra.planning.fit import memory_gb
from infra.planning.planner import gpus_wanted, rented_from, work_of
from infra.providers.base import Offer, offers_for
from infra.settings import Settings
from peft_studio.errors import StudioError
from peft_studio.plan import Plan


def candidates(
    plan: Plan, settings: Settings, credentials: CredentialStore, *, anywhere: bool = False, beyond_gb: float = 0.0
) -> list[Offer]:
    """
    Return live offers that a job fits on, that on which it costs least to finish first.

    They are its own provider's, of the machine it names, or ``anywhere`` those of all connected providers; where GPUs
    with more than ``beyond_gb`` are asked for, they may be of any machine. Whether they are within the job's limits is
    for the meter to say, which knows what was spent before.
    """
    return asyncio.run(_candidates(plan, settings, credentials, anywhere, beyond_gb))


async def _candidates(
    plan: Plan, settings: Settings, credentials: CredentialStore, anywhere: bool, beyond_gb: float
) -> list[Offer]:
    own = rented_from(plan.config)
    assert own is not None
    found: list[Offer] = []
    for name in await connected_providers(credentials) if anywhere else [own]:
        try:
            found += await offers_for(await provider_of(name, settings, credentials), gpus_wanted(plan.config))
        except StudioError:
            if name == own:
                raise
    named = None if anywhere else plan.config.wanted_resource
    large = [one for one in found if not beyond_gb or (memory_gb(one) or 0) > beyond_gb]
    wanted = [one for one in large if named in (None, one.resource_id) or beyond_gb]
    without_limits = plan.config.model_copy(update={"max_cost": None, "max_duration": None})
    work = work_of(plan.model_copy(update={"config": without_limits}))
    return [priced.offer for priced in rank(work, wanted, measured_speeds.read(settings))]
