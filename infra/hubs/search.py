"""One search over all sources of models: none that is slow or away keeps the others' answers back."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from infra.credentials import CredentialStore
from infra.hubs.base import ModelHub
from infra.hubs.civitai import CivitaiModels
from infra.hubs.huggingface import HuggingFaceModels
from infra.hubs.local import LocalModels
from infra.hubs.ollama import OllamaModels
from infra.settings import Settings
from peft_studio.catalog import FoundModel, ModelDetails, UnavailableSource
from peft_studio.config import ModelSource
from peft_studio.errors import InvalidConfig, NotFound, ResourceUnavailable, StudioError

logger = logging.getLogger(__name__)
KEPT_SECONDS = 60.0
AGAIN_SECONDS = 5.0  # a source that failed is asked again behind the back of whoever repeats the search
LAST_PAGE = 10
_REMEMBERED = 500
Question = tuple[ModelSource, str, int]


@dataclass(frozen=True)
class Outcome:
    """What a source answered, or why it did not, and when."""

    models: list[FoundModel]
    error: StudioError | None
    at: float


@dataclass(frozen=True)
class ModelPage:
    """Some models; ``total`` counts those known so far, since no source says how many it has in all."""

    models: list[FoundModel]
    total: int
    page: int
    next_cursor: str | None
    unavailable: list[UnavailableSource]


def all_hubs(credentials: CredentialStore, settings: Settings) -> dict[ModelSource, ModelHub]:
    """Return every source."""
    return {
        ModelSource.LOCAL: LocalModels(settings),
        ModelSource.HUGGINGFACE: HuggingFaceModels(credentials, settings),
        ModelSource.CIVITAI: CivitaiModels(credentials, settings),
        ModelSource.OLLAMA: OllamaModels(credentials, settings),
    }


class Models:
    """
    All sources together. What one answers to a query is kept for a minute, and so is that it did not.

    A source that asks to wait is left alone for that long.
    """

    def __init__(self, hubs: Mapping[ModelSource, ModelHub], seconds: float):
        self._hubs = hubs
        self._seconds = seconds
        self._known: OrderedDict[Question, Outcome] = OrderedDict()
        self._asking: dict[Question, asyncio.Task[Outcome]] = {}
        self._resting: dict[ModelSource, tuple[float, StudioError]] = {}

    async def search(self, query: str, source: ModelSource | None, limit: int, cursor: str | None) -> ModelPage:
        """Return a page of models; raises ``ResourceUnavailable`` where the only source asked does not answer."""
        page = _page(cursor)
        wanted = page * limit + 1
        sources = [source] if source else list(self._hubs)
        outcomes = await asyncio.gather(*(self._outcome((one, query, wanted)) for one in sources))
        if source and outcomes[0].error:
            raise outcomes[0].error
        merged = _in_turn([outcome.models for outcome in outcomes])
        return ModelPage(
            models=merged[wanted - 1 - limit : wanted - 1],
            total=len(merged),
            page=page,
            next_cursor=str(page + 1) if len(merged) >= wanted and page < LAST_PAGE else None,
            unavailable=[
                UnavailableSource(source=one, reason=outcome.error.message)
                for one, outcome in zip(sources, outcomes, strict=True)
                if outcome.error
            ],
        )

    async def details(self, source: str, model_id: str, revision: str | None) -> ModelDetails:
        """Look at one model; raises ``NotFound``, also for a source that there is not."""
        if source not in self._hubs:
            raise NotFound(
                f"There is no source of models {source[:64]!r}; there are {', '.join(self._hubs)}.",
                field="source",
                source=source[:64],
            )
        return await self._hubs[ModelSource(source)].details(model_id, revision)

    async def _outcome(self, question: Question) -> Outcome:
        now = time.monotonic()
        known = self._known.get(question)
        if known is not None and now - known.at < KEPT_SECONDS:
            if known.error and now - known.at > AGAIN_SECONDS:
                self._ask(question)
            return known
        until, error = self._resting.get(question[0], (now, None))
        if error is not None and now < until:
            return Outcome([], error, now)
        return await asyncio.shield(self._ask(question))

    def _ask(self, question: Question) -> asyncio.Task[Outcome]:
        """Ask a source, unless it is being asked this already."""
        if (task := self._asking.get(question)) is None:
            # Before any of several sources is at work: what one does first must not be added to another's time.
            until = asyncio.get_running_loop().time() + self._seconds
            task = self._asking[question] = asyncio.create_task(self._answer(question, until))
            task.add_done_callback(lambda _: self._asking.pop(question, None))
        return task

    async def _answer(self, question: Question, until: float) -> Outcome:
        source, query, wanted = question
        models, error = list[FoundModel](), None
        try:
            async with asyncio.timeout_at(until):
                models = await self._hubs[source].search(query, wanted)
        except TimeoutError:
            error = ResourceUnavailable(f"{source} did not answer within {self._seconds:g} seconds.")
        except StudioError as failed:
            error = failed
            if wait := failed.details.get("retry_after_seconds"):
                self._resting[source] = (time.monotonic() + wait, failed)
        except Exception:  # one source must not take the others' answers along, whatever it sent
            logger.exception("The answer of %s was not understood.", source)
            error = ResourceUnavailable(f"{source} sent an answer that is not understood.")
        outcome = self._known[question] = Outcome(models, error, time.monotonic())
        self._known.move_to_end(question)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return outcome


def _page(cursor: str | None) -> int:
    if cursor is None:
        return 1
    if cursor not in map(str, range(2, LAST_PAGE + 1)):
        raise InvalidConfig("This is not a cursor of a search.", field="cursor", issue="Send one you received")
    return int(cursor)


def _in_turn(lists: list[list[FoundModel]]) -> list[FoundModel]:
    """Merge lists by taking from each in turn, so that longer ones give the same beginning."""
    longest = max(map(len, lists), default=0)
    return [models[place] for place in range(longest) for models in lists if place < len(models)]
