"""Lambda Cloud's peculiarities: one SSH key, cloud-init, calls kept apart, machines that know no end of a command."""

import asyncio
import time
from collections.abc import Iterator

import httpx
import pytest

from infra.providers.base import Account, MachineState, NoCapacity
from infra.providers.lambda_cloud import LambdaCloud, user_data
from infra.simulators.accounts import GOOD
from infra.simulators.cloud import Cloud
from infra.simulators.lambda_cloud import create_lambda, first_docker_run
from infra.simulators.loopback import served
from peft_studio.errors import InvalidConfig
from tests.integration.providers.exchanges import Exchange, recorded
from tests.integration.providers.renting import Renting, order, renting_from
from tests.integration.providers.vendors import VENDORS

pytestmark = pytest.mark.anyio


@pytest.fixture
def renting() -> Iterator[Renting]:
    with renting_from(next(vendor for vendor in VENDORS if vendor.name == "lambda")) as renting:
        yield renting


def client(renting: Renting) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=renting.address, headers={"Authorization": f"Bearer {GOOD}"})


async def test_an_account_without_a_key_gets_one_whose_private_part_is_forgotten(renting: Renting) -> None:
    await renting.rent()
    rented = await renting.rent()
    assert renting.behind(rented).details["asked"]["ssh_key_names"] == ["peft-studio"]
    assert [one.path for one in renting.exchanges if one.method == "POST"].count("/lambda/ssh-keys") == 1


async def test_an_account_with_a_key_keeps_it(renting: Renting) -> None:
    async with client(renting) as human:
        await human.post("/ssh-keys", json={"name": "laptop", "public_key": "ssh-ed25519 AAAA"})
        rented = await renting.rent()
        assert [key["name"] for key in (await human.get("/ssh-keys")).json()["data"]] == ["laptop"]
    assert renting.behind(rented).details["asked"]["ssh_key_names"] == ["laptop"]


async def test_studios_that_make_the_same_key_at_once_both_rent(renting: Renting) -> None:
    rented = await asyncio.gather(*(renting.rent() for _ in range(3)))
    assert len({machine.id for machine in rented}) == 3


async def test_a_type_is_offered_once_a_region_with_its_sizes(renting: Renting) -> None:
    offers = {offer.resource_id: offer for offer in await renting.provider.offers()}
    assert set(offers) == {"gpu-a10", "gpu-a100-40gb", "gpu-h100-80gb-x8", "gpu-rtxa6000"}  # none that is no x86
    a10 = offers["gpu-a10"]
    assert (a10.vram_gb, a10.gpu_count, a10.cpu_cores, a10.ram_gb) == (24, 1, 30, 214.7)
    assert (a10.hourly_rate, a10.billing_increment, a10.region) == (0.75, 60, "us-east-1")
    assert a10.minimum_charge == pytest.approx(0.0125)
    sold_out = offers["gpu-rtxa6000"]
    assert (sold_out.available, sold_out.region) == (False, None)


async def test_what_is_sold_out_everywhere_cannot_be_rented(renting: Renting) -> None:
    offers = {offer.resource_id: offer for offer in await renting.provider.offers()}
    stale = offers["gpu-rtxa6000"].model_copy(update={"ref": {"type": "gpu_1x_a6000", "region": "us-east-1"}})
    with pytest.raises(NoCapacity):
        await renting.provider.rent(stale, order())
    with pytest.raises(NoCapacity):
        await renting.provider.rent(offers["gpu-rtxa6000"], order())


async def test_an_order_that_the_vendor_finds_fault_with_is_invalid(renting: Renting) -> None:
    with pytest.raises(InvalidConfig):
        await renting.provider.rent(await renting.cheapest(), order().model_copy(update={"name": "n" * 65}))


async def test_calls_are_kept_apart_as_the_vendor_asks() -> None:
    cloud, exchanges = Cloud(boot_seconds=0), list[Exchange]()
    try:
        with served(recorded(create_lambda(cloud, launch_seconds=0.5), exchanges)) as address:
            account = Account(f"{address}/lambda", {"api_key": GOOD})
            providers = [LambdaCloud(account, read_pace_seconds=0.1, launch_pace_seconds=0.6) for _ in range(3)]
            offers = await providers[0].offers()
            offer = next(offer for offer in offers if offer.resource_id == "gpu-a10")
            await asyncio.gather(*(provider.rent(offer, order()) for provider in providers))
            began = time.monotonic()
            await asyncio.gather(*(provider.machines() for provider in providers))
            assert time.monotonic() - began > 0.2
    finally:
        cloud.close()
    assert [one.status for one in exchanges if one.path.endswith("/launch")] == [200] * 3


async def test_launches_in_haste_are_refused_by_the_simulator() -> None:
    cloud = Cloud(boot_seconds=0)
    try:
        with served(create_lambda(cloud)) as address:
            account = Account(f"{address}/lambda", {"api_key": GOOD})
            provider = LambdaCloud(account, read_pace_seconds=0, launch_pace_seconds=0)
            offer = next(offer for offer in await provider.offers() if offer.available)
            await provider.rent(offer, order())
            async with httpx.AsyncClient(headers={"Authorization": f"Bearer {GOOD}"}) as hasty:
                answer = await hasty.post(f"{address}/lambda/instance-operations/launch", json={})
            assert answer.status_code == 429
    finally:
        cloud.close()


async def test_machines_are_billed_from_the_end_of_their_boot_by_the_minute(renting: Renting) -> None:
    rented = await renting.rent()
    running = await renting.becomes(rented.id, MachineState.RUNNING)
    await renting.provider.release(rented.id)
    [receipt] = renting.cloud.ledger()
    assert running.hourly_rate is not None
    assert receipt.cost == pytest.approx(running.hourly_rate / 60)


def test_what_cloud_init_is_told_is_one_docker_run_on_all_gpus_that_is_not_repeated() -> None:
    wanted = order("sh", "-c", "echo 'a b' \"$X\" >&2; --restart always", X="1 2\n3", EMPTY="")
    script = user_data(wanted)
    assert script.startswith("#cloud-config\n")
    assert '"--restart", "no"' in script
    assert '"--gpus", "all"' in script
    assert first_docker_run(script) == (list(wanted.command), dict(wanted.environment))


@pytest.mark.parametrize(
    ("text", "command", "environment"),
    [
        ("#cloud-config\nruncmd:\n - docker run -d --rm -e A='1 2' --gpus=all image python -m x\n", 3, {"A": "1 2"}),
        ("#cloud-config\nruncmd:\n - echo hello\n", 2, {}),
        ("#!/bin/sh\necho hello\n", 2, {}),
        ("", 2, {}),
    ],
)
def test_other_peoples_cloud_init_is_understood(text: str, command: int, environment: dict[str, str]) -> None:
    found = first_docker_run(text)
    assert (len(found[0]), found[1]) == (command, environment)
