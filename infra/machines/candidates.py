"""Which offers a job takes, in order."""

import asyncio

from infra.credentials import CredentialStore
from infra.machines.accounts import connected_providers, provider_of, require_way_back
from infra.planning import measured_speeds
from infra.planning.estimates import Work, rank
from infra.planning.fit import memory_gb
from infra.planning.planner import gpus_wanted, rented_from, work_of
from infra.providers.base import Offer, offers_for
from infra.settings import Settings
from peft_studio.errors import StudioError
from peft_studio.plan import Plan


def candidates(
    plan: Plan,
    settings: Settings,
    credentials: CredentialStore,
    *,
    anywhere: bool = False,
    beyond_gb: float = 0.0,
    usual_price: bool = False,
) -> list[Offer]:
    """
    Return live offers that a job fits on, that on which it costs least to finish first.

    They are its own provider's, of the machine it names, or ``anywhere`` those of all connected providers; where GPUs
    with more than ``beyond_gb`` are asked for, they may be of any machine. Where a job that has asked for spot takes
    the ``usual_price`` too, those at that price stand behind all that are at a spot price. Whether they are within the
    job's limits is for the meter to say, which knows what was spent before.
    """
    found = asyncio.run(_found(plan, settings, credentials, anywhere))
    named = None if anywhere else plan.config.wanted_resource
    large = [one for one in found if not beyond_gb or (memory_gb(one) or 0) > beyond_gb]
    wanted = [one for one in large if named in (None, one.resource_id) or beyond_gb]
    measured = measured_speeds.read(settings)
    prices = [plan.config.spot, False] if plan.config.spot and usual_price else [plan.config.spot]
    return [priced.offer for spot in prices for priced in rank(_without_limits(plan, spot), wanted, measured)]


def _without_limits(plan: Plan, spot: bool) -> Work:
    config = plan.config.model_copy(update={"max_cost": None, "max_duration": None, "spot": spot})
    return work_of(plan.model_copy(update={"config": config}))


async def _found(plan: Plan, settings: Settings, credentials: CredentialStore, anywhere: bool) -> list[Offer]:
    """Ask the job's own provider, or all whose machines come back to the studio; one that is away is left out."""
    own = rented_from(plan.config)
    assert own is not None
    found, issue = list[Offer](), None
    for name in await connected_providers(credentials) if anywhere else [own]:
        try:
            await require_way_back(name, settings, credentials)
            found += await offers_for(await provider_of(name, settings, credentials), gpus_wanted(plan.config))
        except StudioError as error:
            issue = error if issue is None or name == own else issue
    if issue is not None and not found:
        raise issue
    return found
