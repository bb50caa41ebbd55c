"""The search over all sources: what is remembered, what is asked again, and who waits for whom."""

import asyncio
import time
from dataclasses import dataclass, field

import pytest

from infra.hubs import search
from infra.hubs.search import Models
from peft_studio.catalog import FoundModel, ModelDetails
from peft_studio.config import ModelSource
from peft_studio.errors import NotFound, ResourceUnavailable, StudioError

pytestmark = pytest.mark.anyio
HUB, LOCAL = ModelSource.HUGGINGFACE, ModelSource.LOCAL


@dataclass
class Shelf:
    """A source that has what it is given; ``trouble`` is raised, and ``open`` is waited for."""

    source: ModelSource
    names: list[str] = field(default_factory=list[str])
    trouble: Exception | None = None
    open: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0

    def __post_init__(self) -> None:
        self.open.set()

    async def search(self, query: str, limit: int) -> list[FoundModel]:
        self.asked += 1
        await self.open.wait()
        if self.trouble:
            raise self.trouble
        return [FoundModel(id=name, name=name, source=self.source) for name in self.names if query in name][:limit]

    async def details(self, model_id: str, revision: str | None) -> ModelDetails:
        raise NotFound


async def found(models: Models, limit: int = 20, cursor: str | None = None) -> list[str]:
    return [model.id for model in (await models.search("", None, limit, cursor)).models]


async def test_many_who_ask_the_same_at_once_ask_a_source_once() -> None:
    hub = Shelf(HUB, ["a"])
    hub.open.clear()
    models = Models({HUB: hub}, seconds=5)
    asking = [asyncio.create_task(found(models)) for _ in range(10)]
    await asyncio.sleep(0)
    hub.open.set()
    assert await asyncio.gather(*asking) == [["a"]] * 10
    assert hub.asked == 1


async def test_what_one_source_does_first_is_not_added_to_the_time_of_another() -> None:
    class Busy(Shelf):
        async def search(self, query: str, limit: int) -> list[FoundModel]:
            time.sleep(0.5)  # as what reads a file, or computes, before it waits for anybody
            return []

    silent = Shelf(LOCAL)
    silent.open.clear()
    began = time.monotonic()
    page = await Models({HUB: Busy(HUB), LOCAL: silent}, seconds=0.5).search("", None, 20, None)
    assert time.monotonic() - began < 0.9
    assert LOCAL in [one.source for one in page.unavailable]


async def test_whoever_gives_up_leaves_the_others_their_answer() -> None:
    hub = Shelf(HUB, ["a"])
    hub.open.clear()
    models = Models({HUB: hub}, seconds=5)
    first, second = (asyncio.create_task(found(models)) for _ in range(2))
    while not hub.asked:
        await asyncio.sleep(0)
    first.cancel()
    hub.open.set()
    assert await second == ["a"]


async def test_a_source_that_failed_is_asked_again_behind_the_callers_back(monkeypatch: pytest.MonkeyPatch) -> None:
    hub, local = Shelf(HUB, ["a"], trouble=ResourceUnavailable("Away.")), Shelf(LOCAL, ["b"])
    models = Models({HUB: hub, LOCAL: local}, seconds=5)
    assert await found(models) == ["b"]
    assert await found(models) == ["b"] and hub.asked == 1
    monkeypatch.setattr(search, "AGAIN_SECONDS", 0.0)
    hub.trouble = None
    hub.open.clear()
    assert await found(models) == ["b"]  # at once, although the source is silent
    hub.open.set()
    async with asyncio.timeout(5):
        while await found(models) != ["a", "b"]:
            await asyncio.sleep(0)
    assert local.asked == 1


@pytest.mark.parametrize("trouble", [ResourceUnavailable("Away."), KeyError("odd"), StudioError("odd")])
async def test_whatever_a_source_raises_the_others_answer(trouble: Exception) -> None:
    models = Models({HUB: Shelf(HUB, trouble=trouble), LOCAL: Shelf(LOCAL, ["b"])}, seconds=5)
    page = await models.search("", None, 20, None)
    assert [model.id for model in page.models] == ["b"]
    assert [source.source for source in page.unavailable] == [HUB]


async def test_pages_take_from_each_source_in_turn() -> None:
    models = Models({HUB: Shelf(HUB, list("aceg")), LOCAL: Shelf(LOCAL, ["b", "d"])}, seconds=5)
    pages = [await found(models, 2, cursor) for cursor in (None, "2", "3", "4")]
    assert pages == [["a", "b"], ["c", "d"], ["e", "g"], []]
    assert (await models.search("", None, 3, "2")).next_cursor is None
    assert (await models.search("", None, 3, None)).next_cursor == "2"
