"""The market: what is on offer and how fast machines have been, fetched for whoever plans a job."""

import asyncio

from infra.credentials import CredentialStore
from infra.machines.offers import OfferBook, offer_book
from infra.planning import measured_speeds
from infra.planning.machine_choice import Market
from infra.planning.planner import gpus_wanted, rented_from
from infra.providers import PROVIDERS
from infra.settings import Settings
from peft_studio.config import TrainingConfig


async def market(config: TrainingConfig, settings: Settings, book: OfferBook) -> Market:
    """
    Return what a job could rent: all that its own provider offers, and what is known of the others.

    Raises what keeps the provider from answering; nothing is asked for a job on this machine.
    """
    provider = rented_from(config)
    if provider not in PROVIDERS:
        return Market()
    own = await book.to_rent_from(provider, gpus_wanted(config))
    others = [offer for offer in (await book.look()).offers if offer.provider != provider]
    return Market([*own, *others], await asyncio.to_thread(measured_speeds.read, settings))


def market_now(config: TrainingConfig, settings: Settings, credentials: CredentialStore) -> Market:
    """Do as ``market`` does, for code that runs without an event loop and asks once."""

    async def ask() -> Market:
        book = offer_book(settings, credentials)
        try:
            return await market(config, settings, book)
        finally:
            await book.close()

    return asyncio.run(ask()) if rented_from(config) else Market()
