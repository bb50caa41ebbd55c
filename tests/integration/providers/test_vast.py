"""What is peculiar to Vast.ai: a market that is bid in, a slash at the end of every path, and a pace to be kept."""

import json
import time
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from infra.providers.base import Account, MachineState, NoCapacity, Offer
from infra.providers.vast import Vast
from infra.providers.vast_answers import machine_of
from infra.simulators.accounts import GOOD
from infra.simulators.faults import Fault, FaultKind
from infra.simulators.vast import ELSEWHERE
from infra.vendor_http import Call, ask
from tests.integration.providers.renting import Renting, at_step, order, renting_from
from tests.integration.providers.vendors import VENDORS

pytestmark = pytest.mark.anyio


@pytest.fixture
def renting() -> Iterator[Renting]:
    [vast] = [vendor for vendor in VENDORS if vendor.name == "vast"]
    with renting_from(vast) as renting:
        yield renting


async def cheapest_bid(renting: Renting) -> Offer:
    bids = [offer for offer in await renting.provider.offers() if offer.spot]
    return min(bids, key=lambda offer: offer.hourly_rate)


async def test_a_path_without_its_last_slash_leads_to_another_host_and_is_never_asked_for(renting: Renting) -> None:
    headers = {"Authorization": f"Bearer {GOOD}"}
    answer = await ask(Call(f"{renting.address}/users/current", headers=headers))
    assert (answer.status, answer.headers["Location"][: len(ELSEWHERE)]) == (301, ELSEWHERE)
    renting.exchanges.clear()
    provider, rented = renting.provider, await renting.rent()
    await provider.machines()
    await provider.machine(rented.id)
    await provider.billed(rented.id, rented.name)
    await provider.release(rented.id)
    assert len(renting.exchanges) == 10
    assert all(exchange.path.endswith("/") for exchange in renting.exchanges)


async def test_of_each_kind_the_cheapest_few_are_offered_to_rent_and_to_bid_for(renting: Renting) -> None:
    offers = await renting.provider.offers()
    kinds = {(offer.resource_id, offer.spot) for offer in offers}
    assert {("gpu-rtx4090", False), ("gpu-rtx4090", True), ("gpu-rtx4090-x2", True)} <= kinds
    for kind in kinds:
        rates = sorted(offer.hourly_rate for offer in offers if (offer.resource_id, offer.spot) == kind)
        assert len(rates) == 3
        assert rates[0] < rates[-1]
    assert len({(offer.ref["ask"], offer.spot) for offer in offers}) == len(offers)
    bid = await cheapest_bid(renting)
    assert bid.hourly_rate < (await renting.cheapest()).hourly_rate


async def test_a_machine_that_was_bid_for_costs_its_bid_and_its_disk(renting: Renting) -> None:
    offer = await cheapest_bid(renting)
    rented = await renting.provider.rent(offer, order())
    sent = json.loads(renting.exchanges[-1].sent)
    assert sent["price"] == float(offer.ref["bid"])
    running = await renting.becomes(rented.id, MachineState.RUNNING)
    assert running.hourly_rate == pytest.approx(offer.hourly_rate, abs=0.005)


async def test_a_bid_that_was_outbid_is_lost_and_a_command_that_ended_is_not(renting: Renting) -> None:
    renting.fail(FaultKind.PREEMPTED, 3)
    outbid = await renting.provider.rent(await cheapest_bid(renting), order(*at_step(3)))
    await renting.becomes(outbid.id, MachineState.LOST)
    ended = await renting.provider.rent(await cheapest_bid(renting), order("true"))
    await renting.becomes(ended.id, MachineState.ENDED)
    shown = [json.loads(one.answered)["instances"] for one in renting.exchanges if "/instances/" in one.path]
    assert {one["actual_status"] for one in shown} >= {"exited"}  # both of them: the hardware tells them apart


RUNS = {"intended_status": "running", "cur_state": "running", "next_state": "running"}
STOPPED = {"intended_status": "stopped", "cur_state": "stopped", "next_state": "stopped"}


@pytest.mark.parametrize(
    ("shown", "state"),
    [
        ({**RUNS, "actual_status": None}, MachineState.BOOTING),
        ({**RUNS, "actual_status": "loading"}, MachineState.BOOTING),
        ({**RUNS, "actual_status": "rebooting"}, MachineState.BOOTING),
        ({**RUNS, "actual_status": "created", "status_msg": "x: OCI runtime create failed: y"}, MachineState.LOST),
        ({**RUNS, "actual_status": "running"}, MachineState.RUNNING),
        ({**RUNS, "actual_status": "exited"}, MachineState.ENDED),
        ({**RUNS, "actual_status": "offline"}, MachineState.LOST),
        ({**RUNS, "actual_status": "unknown"}, MachineState.LOST),
        ({**RUNS, "actual_status": "frozen"}, MachineState.LOST),
        ({**STOPPED, "actual_status": "exited"}, MachineState.ENDED),  # somebody stopped it, or the account is empty
        ({**STOPPED, "actual_status": "exited", "is_bid": True}, MachineState.LOST),  # others pay more
        ({**STOPPED, "actual_status": "loading", "is_bid": True}, MachineState.LOST),
        ({**STOPPED, "actual_status": "stopped", "intended_status": "running"}, MachineState.LOST),  # its host's time
    ],
)
async def test_what_a_machine_is_doing_is_told_from_container_and_contract(
    shown: dict[str, Any], state: MachineState
) -> None:
    assert machine_of({"id": 1, **shown}, Account("https://console.vast.ai/api/v0", {})).state is state


async def test_a_machine_may_end_itself_with_the_key_it_finds(renting: Renting) -> None:
    rented, other = await renting.rent(), await renting.rent()
    own = {"Authorization": f"Bearer {renting.behind(rented).environment['CONTAINER_API_KEY']}"}
    for machine, gone in (other, False), (rented, True):
        await ask(Call(f"{renting.address}/instances/{machine.id}/", "DELETE", headers=own))
        assert (renting.behind(machine).gone is not None) == gone


async def test_a_machine_that_was_made_but_did_not_start_is_returned_as_ended(renting: Renting) -> None:
    offer = await cheapest_bid(renting)
    renting.fail(FaultKind.NO_CAPACITY)
    rented = await renting.provider.rent(offer, order())
    assert rented.state is MachineState.ENDED and rented.reason
    assert renting.behind(rented).starts == 0
    await renting.provider.release(rented.id)
    assert renting.cloud.existing() == []


async def test_a_host_whose_disk_is_too_small_is_passed_over(renting: Renting) -> None:
    offer = await renting.cheapest()
    assert offer.storage_gb is not None
    with pytest.raises(NoCapacity):
        await renting.provider.rent(offer, order().model_copy(update={"disk_gb": int(offer.storage_gb) + 1}))
    assert renting.cloud.machines == {}


async def test_a_bid_below_what_others_pay_by_now_rents_nothing(renting: Renting) -> None:
    offer = await cheapest_bid(renting)
    late = offer.model_copy(update={"ref": {**offer.ref, "bid": "0.001"}})
    with pytest.raises(NoCapacity):
        await renting.provider.rent(late, order())
    assert renting.cloud.machines == {}


async def test_more_machines_than_a_page_shows_are_all_listed(renting: Renting) -> None:
    renting.cloud.faults.add(Fault(kind=FaultKind.ENDLESS_BOOT, times=27))
    names, offers = set[str](), list[Offer]()
    for _ in range(27):
        offers = offers or [offer for offer in await renting.provider.offers() if not offer.spot]
        names.add((await renting.provider.rent(offers.pop(), order())).name)
    renting.exchanges.clear()
    assert {machine.name for machine in await renting.provider.machines()} == names
    assert len(renting.exchanges) == 2


async def test_machines_are_asked_for_no_faster_than_the_vendor_allows(renting: Renting) -> None:
    account, apart = renting.vendor.account(renting.address), 0.3
    offers = {offer.ref["ask"]: offer for offer in await renting.provider.offers()}
    began = time.monotonic()
    async with anyio.create_task_group() as together:
        for offer in list(offers.values())[:3]:
            together.start_soon(Vast(account, ask_seconds=apart).rent, offer, order())
    assert time.monotonic() - began >= 2 * apart
    assert len(renting.cloud.machines) == 3
