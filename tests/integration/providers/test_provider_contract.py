"""
What ``infra/providers/base.py`` promises, sentence by sentence, of every vendor in ``vendors.py``.

Over real sockets against the shipped simulators, whose machines run the order's command as a process.
"""

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from infra.platforms.vendors import VENDORS as PLATFORMS
from infra.providers import PROVIDERS
from infra.providers.base import MachineState, NoCapacity, Unclear
from infra.simulators.accounts import BROKE, GOOD
from infra.simulators.cloud import SimulatedMachine
from infra.simulators.faults import FaultKind
from peft_studio.errors import CredentialRefused, InsufficientCredits, ResourceUnavailable, StudioError
from peft_studio.platforms import Feature
from tests.integration.providers.renting import Renting, at_step, eventually, order, renting_from
from tests.integration.providers.vendors import VENDORS, Vendor

pytestmark = pytest.mark.anyio
CANARY = "canary-key-that-nobody-may-see"


@pytest.fixture(params=VENDORS, ids=lambda vendor: vendor.name)
def renting(request: pytest.FixtureRequest) -> Iterator[Renting]:
    with renting_from(request.param) as renting:
        yield renting


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.name)
def test_it_is_registered_where_jobs_look_for_it(vendor: Vendor) -> None:
    platform = PLATFORMS[vendor.name]
    assert Feature.TRAINING in platform.supported
    assert set(vendor.credentials("http://127.0.0.1", GOOD)) <= {field.name for field in platform.fields}
    assert type(PROVIDERS[vendor.name](vendor.account("http://127.0.0.1"))).__module__.startswith("infra.providers.")


async def test_offers_say_what_a_machine_is_and_costs(renting: Renting) -> None:
    offers = await renting.provider.offers()
    assert any(offer.available for offer in offers)
    for offer in offers:
        assert offer.provider == renting.vendor.name
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", offer.resource_id)
        assert offer.gpu_count < 2 or offer.resource_id.endswith(f"-x{offer.gpu_count}")
        assert offer.billing_increment == renting.cloud.billing_increment
        assert offer.minimum_charge == pytest.approx(offer.hourly_rate * offer.billing_increment / 3600)
        assert offer.vram_gb is None or offer.vram_gb > 1
        assert offer.boot_seconds >= 0


async def test_a_machine_runs_the_command_with_its_environment_until_it_is_released(renting: Renting) -> None:
    greeting, provider = 'it\'s "fine": $HOME; & `ls` \\ ü', renting.provider
    script = 'printf %s "$GREETING" > "greeting of $1"; exec sleep 60'
    rented = await renting.rent("sh", "-c", script, "sh", "it's $1", GREETING=greeting)
    assert rented.state is MachineState.BOOTING
    running = await renting.becomes(rented.id, MachineState.RUNNING)
    assert (running.id, running.name) == (rented.id, rented.name)
    assert running.created_at is None or abs(datetime.now(UTC) - running.created_at) < timedelta(minutes=1)
    file = renting.behind(rented).home / "greeting of it's $1"

    async def greeted() -> bool | None:
        return (file.is_file() and file.read_text() == greeting) or None

    await eventually(greeted)
    assert await renting.listed(rented.name) == running
    await provider.release(rented.id)

    await renting.goes(rented.name)
    assert await provider.machine(rented.id) is None
    process = renting.behind(rented).process
    assert process is None or process.poll() is not None


async def test_all_machines_are_listed_each_by_its_own_name(renting: Renting) -> None:
    rented = [await renting.rent() for _ in range(3)]
    listed = {machine.id: machine.name for machine in await renting.provider.machines()}
    assert listed == {machine.id: machine.name for machine in rented}
    assert len(listed) == 3


async def test_a_machine_is_released_once_or_often_with_the_same_effect(renting: Renting) -> None:
    rented = await renting.rent()
    await renting.provider.release(rented.id)
    await renting.provider.release(rented.id)
    await renting.provider.release(f"{rented.id[:-1]}{'0' if rented.id[-1] != '0' else '1'}")
    await renting.goes(rented.name)


async def test_a_machine_that_nobody_knows_is_none(renting: Renting) -> None:
    rented = await renting.rent()
    unknown = f"{rented.id[:-1]}{'0' if rented.id[-1] != '0' else '1'}"
    assert await renting.provider.machine(unknown) is None
    assert await renting.provider.billed(unknown, "pst-nobody") is None


@pytest.mark.parametrize("kind", [FaultKind.ERROR_AFTER_CREATE, FaultKind.TIMEOUT_AFTER_CREATE])
async def test_an_answer_that_is_lost_is_unclear_and_the_machine_is_found_by_its_name(
    renting: Renting, kind: FaultKind
) -> None:
    offer, wanted = await renting.cheapest(), order()
    renting.fail(kind, 30)
    with pytest.raises(Unclear):
        await renting.provider_with(create_seconds=0.5).rent(offer, wanted)
    found = await eventually(lambda: renting.listed(wanted.name))
    assert len(renting.cloud.machines) == 1
    await renting.provider.release(found.id)
    await renting.goes(found.name)


async def test_a_vendor_that_is_away_is_unclear_unless_it_is_sure_that_nothing_was_created(renting: Renting) -> None:
    provider = renting.vendor.provider(renting.vendor.account("http://127.0.0.1:9"), 1.0)
    offer = await renting.cheapest()
    with pytest.raises(ResourceUnavailable):
        await provider.rent(offer, order())


@pytest.mark.parametrize("kind", [FaultKind.NO_CAPACITY, FaultKind.STALE_OFFER])
async def test_an_offer_that_is_gone_creates_nothing_and_the_next_may_do(renting: Renting, kind: FaultKind) -> None:
    offer = await renting.cheapest()
    renting.fail(kind)
    with pytest.raises(NoCapacity):
        await renting.provider.rent(offer, order())
    assert renting.cloud.machines == {}
    assert (await renting.rent()).id


async def test_a_key_that_is_revoked_is_refused_everywhere(renting: Renting) -> None:
    offer, rented = await renting.cheapest(), await renting.rent()
    renting.fail(FaultKind.REVOKED_KEY)
    provider = renting.provider
    calls = [provider.offers, provider.machines]
    calls += [lambda: provider.machine(rented.id), lambda: provider.release(rented.id)]
    calls += [lambda: provider.rent(offer, order())]
    calls += [lambda: provider.billed(rented.id, rented.name)] if renting.vendor.tells_bill else []
    for call in calls:
        with pytest.raises(CredentialRefused) as caught:
            await call()
        assert caught.value.details["platform"] == renting.vendor.name
    assert len(renting.cloud.existing()) == 1


async def test_an_account_out_of_credit_rents_nothing(renting: Renting) -> None:
    offer = await renting.cheapest()
    renting.fail(FaultKind.OUT_OF_CREDIT)
    with pytest.raises(InsufficientCredits):
        await renting.provider.rent(offer, order())
    assert renting.cloud.machines == {}


async def test_what_is_asked_too_often_is_asked_again_and_rents_once(renting: Renting) -> None:
    offer = await renting.cheapest()
    for _ in range(2):
        renting.fail(FaultKind.RATE_LIMIT)
    await asyncio.gather(renting.provider.machines(), renting.provider.rent(offer, order()))
    assert renting.cloud.faults.take(FaultKind.RATE_LIMIT) is None
    assert len(renting.cloud.machines) == 1


async def test_what_a_machine_really_costs_is_read_from_it(renting: Renting) -> None:
    offer = await renting.cheapest()
    renting.fail(FaultKind.PRICE_DRIFT, 1.5)
    rented = await renting.provider.rent(offer, order())
    running = await renting.becomes(rented.id, MachineState.RUNNING)
    expected = pytest.approx(1.5 * offer.hourly_rate, abs=0.005) if renting.vendor.tells_rate else None
    assert running.hourly_rate == expected


async def test_a_machine_that_was_taken_away_is_lost(renting: Renting) -> None:
    renting.fail(FaultKind.PREEMPTED, 3)
    rented = await renting.rent(*at_step(3))
    await renting.becomes(rented.id, MachineState.LOST)
    await renting.provider.release(rented.id)
    await renting.goes(rented.name)


async def test_a_command_that_ends_ends_the_machine_or_is_started_anew(renting: Renting) -> None:
    rented = await renting.rent("sh", "-c", "exit 3")
    behind = renting.behind(rented)
    if not behind.is_restarted:
        await eventually(lambda: _ended(behind))
        state = MachineState.ENDED if renting.vendor.tells_end else MachineState.RUNNING
        ended = await renting.becomes(rented.id, state)
        assert ended.exit_code == (3 if renting.vendor.tells_exit_code else None)
        assert behind.starts == 1
    else:
        await _is_started_anew(renting, rented.name)
        assert (await renting.becomes(rented.id, MachineState.RUNNING)).exit_code is None


async def test_a_container_that_is_started_anew_runs(renting: Renting) -> None:
    renting.fail(FaultKind.RESTARTED)
    rented = await renting.rent("sh", "-c", "test -e first && exec sleep 60; touch first")
    await _is_started_anew(renting, rented.name)
    assert (await renting.becomes(rented.id, MachineState.RUNNING)).name == rented.name


async def _ended(machine: SimulatedMachine) -> bool | None:
    return machine.ended is not None or None


async def _is_started_anew(renting: Renting, name: str) -> None:
    async def again() -> bool | None:
        return any(one.name == name and one.starts > 1 for one in renting.cloud.machines.values()) or None

    await eventually(again)


async def test_a_slow_boot_is_a_boot_and_an_endless_one_stays_one(renting: Renting) -> None:
    offer = await renting.cheapest()
    renting.fail(FaultKind.SLOW_BOOT, 0.6)
    slow = await renting.provider.rent(offer, order())
    renting.fail(FaultKind.ENDLESS_BOOT)
    endless = await renting.rent()  # an offer may be taken once only
    await renting.becomes(slow.id, MachineState.BOOTING)
    await renting.becomes(slow.id, MachineState.RUNNING)
    assert (await renting.becomes(endless.id, MachineState.BOOTING)).id == endless.id
    await renting.provider.release(endless.id)
    await renting.goes(endless.name)


async def test_a_list_that_lags_shows_the_machine_in_the_end(renting: Renting) -> None:
    renting.fail(FaultKind.LIST_LAG, 0.5)
    rented = await renting.rent()
    assert await renting.listed(rented.name) is None
    assert (await eventually(lambda: renting.listed(rented.name))).id == rented.id


async def test_the_bill_is_the_vendors_own(renting: Renting) -> None:
    provider = renting.provider
    rented = await renting.rent()
    await renting.becomes(rented.id, MachineState.RUNNING)
    await provider.release(rented.id)
    if not renting.vendor.tells_bill:
        assert await provider.billed(rented.id, rented.name) is None
        return
    billed = await eventually(lambda: provider.billed(rented.id, rented.name))
    [receipt] = renting.cloud.ledger()
    assert receipt.gone is not None
    assert billed == pytest.approx(receipt.cost, abs=1e-6)
    assert billed > 0


@pytest.mark.parametrize("key", [CANARY, BROKE])
async def test_a_key_of_no_use_is_told_so_and_is_in_no_error(renting: Renting, key: str) -> None:
    offer = await renting.cheapest()
    provider = renting.provider_with(key=key)
    for call in (provider.offers, provider.machines, lambda: provider.rent(offer, order())):
        with pytest.raises((CredentialRefused, InsufficientCredits)) as caught:
            await call()
        assert key not in f"{caught.value!r} {caught.value.details} {caught.value.__cause__}"
    assert key not in repr(provider)
    assert renting.cloud.machines == {}


async def test_the_key_is_in_no_error_no_body_and_no_environment(renting: Renting) -> None:
    for kind in FaultKind.ERROR_AFTER_CREATE, FaultKind.NO_CAPACITY, FaultKind.OUT_OF_CREDIT:
        if kind in renting.vendor.impossible:
            continue
        renting.fail(kind)
        with pytest.raises(StudioError) as caught:
            await renting.rent()
        assert GOOD not in f"{caught.value!r} {caught.value.details}"
    await renting.rent(A="b")
    seen = [f"{one.environment} {one.command} {one.details}" for one in renting.cloud.machines.values()]
    seen += [f"{one.path} {one.query} {one.sent!r} {one.answered!r}" for one in renting.exchanges]
    assert all(GOOD not in text for text in [*seen, repr(renting.provider), repr(await renting.cheapest())])
