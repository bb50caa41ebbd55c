"""The book of offers: fresh, complete, and never held up by a vendor."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from infra.machines import offers as book_module
from infra.machines.offers import LOOK_SECONDS, OfferBook
from infra.planning.planner import gpus_wanted
from infra.providers.base import Offer, Order, Rented
from infra.resources import likely_resource, rentable
from peft_studio.errors import CredentialRefused, ResourceUnavailable, StudioError
from tests.rented_jobs import config, offer

pytestmark = pytest.mark.anyio
SECONDS = 10.0


class Shop:
    """A vendor that offers one machine, once it is let."""

    def __init__(self, name: str, trouble: Exception | None = None):
        self.name = name
        self.trouble = trouble
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()

    async def offers(self) -> list[Offer]:
        self.asked += 1
        await self.open.wait()
        if self.trouble:
            raise self.trouble
        return [offer("gpu-rtx4090", 0.4, provider=self.name)]

    async def rent(self, offer: Offer, order: Order) -> Rented:
        raise AssertionError("nobody rents here")

    async def machines(self) -> list[Rented]:
        return []

    async def machine(self, machine_id: str) -> Rented | None:
        return None

    async def release(self, machine_id: str) -> None: ...

    async def billed(self, machine_id: str, name: str) -> float | None:
        return None


class Counting(Shop):
    """One that has a single GPU to a machine."""

    async def offers_in_stock(self, gpu_count: int) -> list[Offer]:
        return [offer("gpu-rtx4090-x2", 0.8, provider=self.name, gpu_count=2, available=gpu_count < 2)]


class Mall:
    """Some shops, of which the first so many are connected."""

    def __init__(self, *shops: Shop):
        self.shops = {shop.name: shop for shop in shops}
        self.names = list(self.shops)
        self.trouble: StudioError | None = None

    async def connected(self) -> Sequence[str]:
        if self.trouble:
            raise self.trouble
        return self.names

    async def shop(self, name: str) -> Shop:
        return self.shops[name]

    def book(self) -> OfferBook:
        return OfferBook(self.connected, self.shop)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + SECONDS
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_all_connected_providers_are_asked_at_once_and_once() -> None:
    mall = Mall(Shop("runpod"), Shop("vast"))
    book = mall.book()
    looks = await asyncio.gather(*(book.look(seconds=SECONDS) for _ in range(20)))
    assert all({one.provider for one in look.offers} == {"runpod", "vast"} for look in looks)
    assert all(not look.unavailable for look in looks)
    assert [shop.asked for shop in mall.shops.values()] == [1, 1]
    await book.close()


async def test_a_slow_vendor_holds_up_nobody_and_is_named() -> None:
    slow, quick = Shop("vast"), Shop("runpod")
    slow.open.clear()
    book = Mall(slow, quick).book()
    began = time.monotonic()
    first = await book.look()
    assert LOOK_SECONDS * 0.9 < time.monotonic() - began < LOOK_SECONDS + 1
    assert [one.provider for one in first.offers] == ["runpod"]
    assert "not answered yet" in first.unavailable["vast"]
    slow.open.set()

    async def is_whole() -> bool:
        return len((await book.look()).offers) == 2

    await until(is_whole)
    assert slow.asked == 1  # the first question was answered, late
    await book.close()


async def test_a_vendor_that_fails_is_named_with_its_reason_and_left_alone_for_a_while() -> None:
    broken = Shop("vast", CredentialRefused("Vast.ai refused the credentials (403)."))
    book = Mall(broken, Shop("runpod")).book()
    for _ in range(3):
        look = await book.look(seconds=SECONDS)
        assert look.unavailable == {"vast": "Vast.ai refused the credentials (403)."}
        assert [one.provider for one in look.offers] == ["runpod"]
    assert broken.asked == 1
    with pytest.raises(CredentialRefused):
        await book.of("vast")
    assert broken.asked == 2  # whoever needs this very one has it asked again
    broken.trouble = None
    assert len(await book.of("vast")) == 1
    assert (await book.look()).unavailable == {}
    await book.close()


async def test_a_fault_of_ours_with_one_vendor_keeps_no_other_from_being_shown() -> None:
    book = Mall(Shop("vast", KeyError("secret words")), Shop("runpod")).book()
    look = await book.look(seconds=SECONDS)
    assert len(look.offers) == 1
    assert "could not be read" in look.unavailable["vast"]
    assert "secret words" not in look.unavailable["vast"]
    await book.close()


async def test_what_is_connected_while_that_cannot_be_read_is_what_was_connected() -> None:
    mall = Mall(Shop("runpod"))
    book = mall.book()
    assert len((await book.look(seconds=SECONDS)).offers) == 1
    mall.trouble = ResourceUnavailable("The Prefect server does not answer.")
    assert len((await book.look()).offers) == 1
    mall.trouble = None
    mall.names = []
    assert (await book.look(seconds=SECONDS)).offers == []
    await book.close()


async def test_a_vendor_whose_stock_depends_on_the_number_of_gpus_is_asked_for_that_number() -> None:
    counting, other = Counting("runpod"), Shop("vast")
    book = Mall(counting, other).book()
    assert [one.available for one in await book.to_rent_from("runpod", 2)] == [False]
    assert counting.asked == 0
    assert [one.resource_id for one in await book.to_rent_from("runpod")] == ["gpu-rtx4090"]
    assert [one.resource_id for one in await book.to_rent_from("vast", 2)] == ["gpu-rtx4090"]
    await book.close()


@pytest.mark.parametrize(
    ("wishes", "count"),
    [
        ({}, 1),
        ({"resource_id": "auto", "num_processes": 4}, 4),
        ({"resource_id": "gpu-h100-80gb-x2"}, 2),
        ({"resource_id": "gpu-h100-80gb-x8", "num_processes": 4}, 8),
        ({"resource_id": "gpu-l4"}, 1),
    ],
)
def test_a_job_says_how_many_gpus_it_needs_by_its_machine_or_by_its_processes(wishes: Any, count: int) -> None:
    assert gpus_wanted(config(provider="runpod", **wishes)) == count


def test_of_each_kind_the_cheapest_that_can_be_had_is_shown() -> None:
    machines = rentable(
        [
            offer("gpu-h100", 2.5, available=False),
            offer("gpu-h100", 3.0),
            offer("gpu-h100", 3.5),
            offer("gpu-h100", 1.1, spot=True),
            offer("gpu-h100", 1.2, spot=True),
            offer("gpu-h100", 2.9, provider="lambda"),
            offer("gpu-gone", 0.2, available=False),
            offer("gpu-spot", 0.1, spot=True),
        ]
    )
    assert [(one.provider, one.id, one.pricing.hourly_rate, one.available) for one in machines] == [
        ("runpod", "gpu-gone", 0.2, False),
        ("lambda", "gpu-h100", 2.9, True),
        ("runpod", "gpu-h100", 3.0, True),
    ]
    assert [one.pricing.spot_hourly_rate for one in machines] == [None, None, 1.1]
    assert (machines[0].cpu_cores, machines[0].ram_gb, machines[0].storage_gb) == (None, None, None)


def test_a_mistyped_machine_is_answered_with_those_that_were_meant() -> None:
    known = {"gpu-rtx4090", "gpu-rtx3090", "gpu-h100-80gb"}
    assert likely_resource("gpu-rtx-4090", known).startswith("; it has 'gpu-rtx4090'")
    assert "'gpu-h100-80gb'" in likely_resource("x", known)
    assert "none" in likely_resource("gpu-rtx4090", set())


def test_offers_are_asked_for_before_they_are_too_old_to_be_shown() -> None:
    assert book_module._RENEW_SECONDS + book_module._ROUND_SECONDS < book_module.LONGEST_SECONDS
