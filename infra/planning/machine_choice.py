"""Which machine on offer a job gets, and why none would do: said before anything is rented."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from infra.planning.estimates import Priced, Work, estimate, is_within_limits, rank
from infra.planning.fit import cheapest_that_fit, has_room, memory_gb, needed_gb
from infra.planning.measured_speeds import Kind, MeasuredJob
from infra.providers.base import Offer
from peft_studio.errors import InvalidConfig, ResourceUnavailable
from peft_studio.plan import Estimate, PlannedOffer

BEST = 3


@dataclass(frozen=True)
class Market:
    """What is on offer at all connected providers, and how fast machines have been."""

    offers: Sequence[Offer] = ()
    measured: Mapping[Kind, Sequence[MeasuredJob]] = field(default_factory=dict[Kind, Sequence[MeasuredJob]])

    def of(self, provider: str) -> list[Offer]:
        """Return what one provider offers."""
        return [offer for offer in self.offers if offer.provider == provider]


def check_wishes(market: Market, provider: str, resource_id: str | None, spot: bool) -> None:
    """Raise where a provider has no such machine, or none for a spot price; knows nothing of the job itself."""
    offers = market.of(provider)
    if not offers:
        raise ResourceUnavailable(
            f"{provider} offers no machine at the moment; try again later, or change provider.", field="provider"
        )
    if resource_id is not None and all(offer.resource_id != resource_id for offer in offers):
        likely = likely_resource(resource_id, {offer.resource_id for offer in offers})
        raise InvalidConfig.of("resource_id", f"{provider} has no machine {resource_id[:64]!r}{likely}")
    wanted = [offer for offer in offers if resource_id in (None, offer.resource_id)]
    if spot and not any(offer.spot for offer in wanted):
        what = f"the machine {resource_id!r}" if resource_id else "any machine"
        raise InvalidConfig.of("spot", f"{provider} does not rent {what} at a spot price; leave the field out")


def choose(work: Work, market: Market, provider: str) -> tuple[Priced, list[PlannedOffer]]:
    """
    Return the machine on which a job costs least to finish, and the best of all providers; raises why there is none.

    A provider's machine that is sold out raises ``ResourceUnavailable``; all else is ``InvalidConfig`` with the field.
    """
    resource_id = work.config.wanted_resource
    own = [offer for offer in market.of(provider) if resource_id in (None, offer.resource_id)]
    best = rank(work, market.offers, market.measured)
    mine = rank(work, own, market.measured)
    if not mine:
        raise _why_none(work, own, market, provider)
    return mine[0], [_planned(priced) for priced in _distinct(best)[:BEST]]


def likely_resource(resource_id: str, known: Collection[str]) -> str:
    """Say which machines could have been meant, as an addition to a sentence."""
    if not known:
        return "; it offers none at the moment"
    close = get_close_matches(resource_id.lower()[:64], sorted(known), n=3, cutoff=0.5) or sorted(known)[:5]
    return f"; it has {', '.join(map(repr, close))}"


def _why_none(work: Work, own: Sequence[Offer], market: Market, provider: str) -> Exception:
    config = work.config
    priced = [offer for offer in own if offer.spot == config.spot]
    several = [offer for offer in priced if offer.gpu_count >= (config.num_processes or 1)]
    if not several:
        most = max((offer.gpu_count for offer in priced), default=0)
        return InvalidConfig.of(
            "num_processes", f"such a machine of {provider}'s has {most} GPU(s); give at most as many"
        )
    roomy = [offer for offer in several if has_room(offer, config, work.model, work.dataset) is not False]
    if not roomy:
        return _too_small(work, several, market, provider)
    there = [offer for offer in roomy if offer.available]
    if not there:
        return ResourceUnavailable(
            f"No such machine is to be had at {provider} at the moment; try again later, or change resource_id.",
            field="resource_id",
        )
    return _beyond_limits(work, there, market)


def _too_small(work: Work, offers: Sequence[Offer], market: Market, provider: str) -> InvalidConfig:
    needed = needed_gb(work.config, work.model, work.dataset)
    largest = max(memory_gb(offer) or 0 for offer in offers)
    alike = [offer for offer in market.offers if offer.spot == work.config.spot]
    near = [offer for offer in alike if offer.provider == provider]
    fitting = cheapest_that_fit(near, work.config, work.model, work.dataset)
    elsewhere = [] if fitting else _elsewhere(work, alike)
    found = [*fitting, *elsewhere]
    advice = f"use {' or '.join(found)}" if found else "no connected provider has a machine that does"
    issue = (
        f"the job takes about {needed:g} GB of GPU memory, and {largest:g} GB do not hold it; {advice}, or have it "
        "take less: quantization int4, gradient_checkpointing, a smaller batch_size or max_length"
    )
    return InvalidConfig.of("resource_id", issue, fits=found, needed_vram_gb=needed)


def _elsewhere(work: Work, offers: Sequence[Offer]) -> list[str]:
    """Name what fits at other providers, with the provider."""
    named = [offer.model_copy(update={"resource_id": f"{offer.resource_id} ({offer.provider})"}) for offer in offers]
    return cheapest_that_fit(named, work.config, work.model, work.dataset)


def _beyond_limits(work: Work, offers: Sequence[Offer], market: Market) -> InvalidConfig:
    config = work.config
    known = [
        found
        for offer in offers
        if (found := estimate(work, offer, market.measured.get((offer.provider, offer.resource_id), ())))
    ]
    in_time = [found for found in known if is_within_limits(config.model_copy(update={"max_cost": None}), found)]
    if not in_time:
        quickest = min(known, key=lambda found: found.minutes.low)
        return InvalidConfig.of(
            "max_duration",
            f"the quickest such machine takes {quickest.minutes.low:.1f} to {quickest.minutes.high:.1f} minutes",
        )
    cheapest: Estimate = min(in_time, key=lambda found: found.cost.low)
    return InvalidConfig.of(
        "max_cost",
        f"on the cheapest such machine the job costs ${cheapest.cost.low:.2f} to ${cheapest.cost.high:.2f} to finish",
    )


def _distinct(best: Sequence[Priced]) -> list[Priced]:
    """Keep of each kind of machine the first."""
    kinds = {(priced.offer.provider, priced.offer.resource_id): priced for priced in reversed(best)}
    return [priced for priced in best if kinds[priced.offer.provider, priced.offer.resource_id] is priced]


def _planned(priced: Priced) -> PlannedOffer:
    shown = priced.offer.model_dump(include=set(PlannedOffer.model_fields))
    return PlannedOffer(**shown, estimate=priced.estimate)
