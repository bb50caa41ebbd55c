"""What a job would be and take, without starting it."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from infra.machines.offers import OfferBook
from infra.planning.facts import Facts
from infra.planning.machine_choice import Market
from infra.planning.market import market
from infra.planning.planner import make_plan, platforms_of
from infra.platforms.connections import Platforms
from infra.settings import Settings
from peft_studio.config import TrainingConfig
from peft_studio.plan import Plan


@dataclass(frozen=True)
class Planned:
    """A plan, and the job whose adapter would be used instead of training it again."""

    plan: Plan
    reused_from: str | None


class JobPlans:
    """Plans jobs; leaves nothing behind."""

    def __init__(self, settings: Settings, platforms: Platforms, offers: OfferBook):
        self._settings = settings
        self._platforms = platforms
        self._offers = offers

    async def plan(self, config: TrainingConfig, facts: Facts | None = None) -> Planned:
        """Check a configuration as submitting it does; raises what is wrong with it. ``facts`` were found before."""
        connected = await self._platforms.connected(platforms_of(config))
        on_offer = await market(config, self._settings, self._offers)
        return await asyncio.to_thread(self._plan, config, connected, on_offer, facts)

    def _plan(
        self, config: TrainingConfig, connected: Collection[str], on_offer: Market, facts: Facts | None
    ) -> Planned:
        plan = make_plan(config, self._settings, connected, on_offer, facts)
        return Planned(plan, None if config.force else trained_before(plan, self._settings))


class _Cached(BaseModel):
    """Prefect's file of a task's result."""

    result: str


class _Trained(BaseModel):
    """What is in it of ``tasks.train.Trained``."""

    class Content(BaseModel):
        """Its fields."""

        job_id: str

    data: Content


def trained_before(plan: Plan, settings: Settings) -> str | None:
    """Return the job that trained this very adapter and still has it, by what the flow's train step has cached."""
    try:
        cached = _Cached.model_validate_json((settings.results / f"trained-{plan.cache_key}").read_bytes())
        job_id = _Trained.model_validate_json(cached.result).data.job_id
    except (OSError, ValidationError):
        return None
    return job_id if settings.run_dir(job_id).adapter.is_dir() else None
