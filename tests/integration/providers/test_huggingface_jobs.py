"""What is peculiar to Hugging Face Jobs: jobs that end by themselves, flavours, and whose a token is."""

from collections.abc import Iterator

import anyio
import anyio.to_thread
import pytest
from huggingface_hub import HfApi, JobStage

from infra.providers.base import Account, MachineState
from infra.providers.huggingface_jobs import HuggingFaceJobs
from infra.simulators.accounts import GOOD
from infra.simulators.faults import Fault, FaultKind
from peft_studio.errors import InvalidConfig
from tests.integration.providers.renting import Renting, order, renting_from
from tests.integration.providers.vendors import VENDORS

pytestmark = pytest.mark.anyio


@pytest.fixture
def renting() -> Iterator[Renting]:
    [jobs] = [vendor for vendor in VENDORS if vendor.name == "huggingface"]
    with renting_from(jobs) as renting:
        yield renting


async def test_flavours_are_offered_with_their_hourly_price_and_the_memory_of_one_gpu(renting: Renting) -> None:
    offers = {offer.ref["flavor"]: offer for offer in await renting.provider.offers()}
    pair = offers["a10g-largex2"]
    assert (pair.resource_id, pair.gpu_count, pair.vram_gb) == ("gpu-a10g-x2", 2, 24)
    assert pair.hourly_rate == pytest.approx(3.0)
    assert (pair.cpu_cores, pair.ram_gb, pair.storage_gb) == (24, 92, 1000)
    none = offers["cpu-basic"]
    assert (none.resource_id, none.gpu_count, none.gpu_type, none.vram_gb) == ("cpu-basic", 0, None, None)


async def test_a_job_that_takes_too_long_is_ended_by_the_vendor(renting: Renting) -> None:
    wanted = order().model_copy(update={"max_seconds": 1})
    rented = await renting.provider.rent(await renting.cheapest(), wanted)
    ended = await renting.becomes(rented.id, MachineState.LOST)
    assert "timeout" in ended.reason
    assert await renting.provider.machines() == []
    assert renting.cloud.existing() == []


async def test_a_job_that_is_over_is_billed_no_more_and_may_still_be_released(renting: Renting) -> None:
    rented = await renting.rent("true")
    ended = await renting.becomes(rented.id, MachineState.ENDED)
    assert ended.exit_code == 0
    assert await renting.listed(rented.name) is None
    assert isinstance(renting.provider, HuggingFaceJobs)
    assert await renting.provider.ended("another") is None
    assert (found := await renting.provider.ended(rented.name)) is not None and found.id == rented.id
    await renting.provider.release(rented.id)
    [receipt] = renting.cloud.ledger()
    assert receipt.gone is not None
    assert await renting.provider.billed(rented.id, rented.name) == pytest.approx(receipt.cost)


async def test_a_job_that_never_ran_costs_nothing(renting: Renting) -> None:
    renting.fail(FaultKind.ENDLESS_BOOT)
    rented = await renting.rent()
    await renting.provider.release(rented.id)
    assert await renting.provider.billed(rented.id, rented.name) == 0


async def test_more_jobs_than_a_page_shows_are_all_listed(renting: Renting) -> None:
    renting.cloud.faults.add(Fault(kind=FaultKind.ENDLESS_BOOT, times=23))
    offer = await renting.cheapest()
    names = {(await renting.provider.rent(offer, order())).name for _ in range(23)}
    renting.exchanges.clear()
    assert {machine.name for machine in await renting.provider.machines()} == names
    assert [one.path.rpartition("/")[2] for one in renting.exchanges].count("alice") == 2


async def test_an_order_that_no_flavour_could_run_is_at_fault_itself(renting: Renting) -> None:
    wanted = order().model_copy(update={"image": ""})
    with pytest.raises(InvalidConfig):
        await renting.provider.rent(await renting.cheapest(), wanted)


async def test_whose_a_token_is_is_asked_once(renting: Renting) -> None:
    for _ in range(2):
        assert await renting.provider.machines() == []
    await renting.provider.offers()
    assert len([one for one in renting.exchanges if one.path.endswith("/whoami-v2")]) == 1


async def test_an_organization_pays_where_the_credentials_name_one(renting: Renting) -> None:
    provider = HuggingFaceJobs(Account(renting.address, {"api_key": GOOD, "namespace": "acme"}))
    rented = await provider.rent(await renting.cheapest(), order())
    assert [machine.id for machine in await provider.machines()] == [rented.id]
    assert await renting.provider.machines() == []
    assert await renting.provider.machine(rented.id) is None
    await provider.release(rented.id)
    assert renting.cloud.existing() == []


async def test_the_vendors_own_client_runs_lists_and_cancels_jobs_at_the_simulator(renting: Renting) -> None:
    def use_client() -> None:
        client = HfApi(renting.address, GOOD)
        flavors = {hardware.name: hardware for hardware in client.list_jobs_hardware()}
        assert flavors["a100-large"].accelerator is not None
        job = client.run_job(
            image="python:3.12", command=["sleep", "60"], env={"A": "b"}, flavor="t4-small", timeout=60
        )
        assert (job.status.stage, job.flavor, job.owner.name) == ("SCHEDULING", "t4-small", "alice")
        for _ in range(22):
            client.run_job(image="python:3.12", command=["true"])
        assert len(list(client.list_jobs(namespace="alice"))) == 23
        running = client.wait_for_job(job.id, poll_interval=0.05, timeout=5, stages=[JobStage.RUNNING])
        assert running.durations is not None
        client.cancel_job(job_id=job.id)
        assert client.inspect_job(job_id=job.id).status.stage == "CANCELED"

    await anyio.to_thread.run_sync(use_client)
