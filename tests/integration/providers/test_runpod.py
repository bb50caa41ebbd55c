"""RunPod's peculiarities: refusals that only their text tells apart, lists in two shapes, pods that end themselves."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from infra.providers.base import Account, MachineState, NoCapacity, Offer, Unclear, offers_for
from infra.providers.runpod import RunPod
from infra.simulators.accounts import GOOD
from infra.simulators.exchange import Asked, Reply, application
from infra.simulators.loopback import served
from infra.simulators.runpod import NO_FREE_GPU
from infra.simulators.runpod_orders import SOLD_OUT, problem
from peft_studio.errors import CredentialRefused, InvalidConfig, ResourceUnavailable
from tests.integration.providers.renting import Renting, order, renting_from
from tests.integration.providers.vendors import VENDORS

pytestmark = pytest.mark.anyio
OFFER = Offer(
    provider="runpod",
    resource_id="gpu-l4",
    name="L4",
    gpu_type="L4",
    gpu_count=1,
    vram_gb=24,
    hourly_rate=0.4,
    billing_increment=1,
    minimum_charge=0.4 / 3600,
    boot_seconds=30,
    ref={"gpu": "NVIDIA L4", "cloud": "SECURE"},
)
POD = {"id": "p1", "name": "pst-1", "status": "RUNNING", "cost": 0.4, "createdAt": "2026-06-01T12:00:00Z"}


@pytest.fixture
def renting() -> Iterator[Renting]:
    with renting_from(next(vendor for vendor in VENDORS if vendor.name == "runpod")) as renting:
        yield renting


class Answering:
    """A vendor that gives one answer to everything, or what a function makes of the request."""

    def __init__(self, answer: Reply | Callable[[Asked], Reply]):
        async def reply(asked: Asked) -> Reply:
            return answer if isinstance(answer, Reply) else answer(asked)

        self._app = served(application(reply))

    def __enter__(self) -> RunPod:
        return RunPod(Account(self._app.__enter__(), {"api_key": GOOD}))

    def __exit__(self, *raised: Any) -> None:
        self._app.__exit__(*raised)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (problem(400, SOLD_OUT), NoCapacity),
        (problem(400, NO_FREE_GPU), NoCapacity),
        (problem(400, "This machine does not have the resources to deploy your pod."), NoCapacity),
        (problem(400, "exactly one of gpu or cpu must be set"), InvalidConfig),
        (problem(422, "Request validation failed.", "$: additional properties 'bogus' not allowed"), InvalidConfig),
        (problem(413, "request too large"), InvalidConfig),
        (problem(403, "access denied"), CredentialRefused),
        (problem(403, "this GPU pool is not open to your account"), NoCapacity),
        (problem(404, "resource not found"), NoCapacity),
        (problem(405, "The requested method is not allowed for this path."), ResourceUnavailable),
        (problem(502, "bad gateway"), Unclear),
        (Reply({"id": ""}, 201), Unclear),
        (Reply(b"<html>Welcome</html>", 201), Unclear),
        (Reply(b"", 302, {"Location": "https://elsewhere.example"}), ResourceUnavailable),
    ],
)
async def test_a_refusal_is_told_by_its_status_and_text(answer: Reply, expected: type[Exception]) -> None:
    with Answering(answer) as provider, pytest.raises(expected) as caught:
        await provider.rent(OFFER, order())
    assert type(caught.value) is expected


async def test_what_is_wrong_with_an_order_is_said_without_the_key() -> None:
    answer = problem(422, "Request validation failed.", f"$.env: {GOOD} is no string", "x" * 5000)
    with Answering(answer) as provider, pytest.raises(InvalidConfig, match=r"\$\.env: \*\*\* is no string") as caught:
        await provider.rent(OFFER, order())
    assert len(caught.value.message) < 500


@pytest.mark.parametrize("shape", [[POD], {"pods": [POD]}, {"pods": [POD], "pagination": {"hasNextPage": False}}])
async def test_pods_are_read_from_either_shape_of_list(shape: Any) -> None:
    with Answering(Reply(shape)) as provider:
        [machine] = await provider.machines()
    assert (machine.id, machine.name, machine.state, machine.hourly_rate) == ("p1", "pst-1", MachineState.RUNNING, 0.4)


async def test_every_page_of_a_list_is_read() -> None:
    def page(asked: Asked) -> Reply:
        number = int(asked.query.get("cursor", 0))
        more = {"nextCursor": str(number + 1), "hasNextPage": True} if number < 2 else {"hasNextPage": False}
        return Reply({"pods": [POD | {"id": f"p{number}"}], "pagination": more})

    with Answering(page) as provider:
        assert [machine.id for machine in await provider.machines()] == ["p0", "p1", "p2"]


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("PROVISIONING", MachineState.BOOTING),
        ("STARTING", MachineState.BOOTING),
        ("RUNNING", MachineState.RUNNING),
        ("EXITED", MachineState.ENDED),
        ("ERROR", MachineState.LOST),
        ("TERMINATED", MachineState.LOST),
    ],
)
async def test_every_status_of_a_pod_is_understood(status: str, state: MachineState) -> None:
    with Answering(Reply(POD | {"status": status, "cost": 0})) as provider:
        machine = await provider.machine("p1")
    assert machine is not None
    assert (machine.state, machine.hourly_rate) == (state, None)


async def test_a_pod_of_a_cluster_that_cannot_be_ended_is_no_silence() -> None:
    refused = problem(409, "Pod belongs to a cluster and cannot be terminated via the pod endpoints.")
    with Answering(refused) as provider, pytest.raises(ResourceUnavailable, match="cluster"):
        await provider.release("p1")


async def test_ids_do_not_lead_to_other_addresses(renting: Renting) -> None:
    assert await renting.provider.machine("../billing/pods?x=") is None
    assert renting.exchanges[-1].status == 404


async def test_both_clouds_are_offered_in_the_numbers_that_one_machine_can_have(renting: Renting) -> None:
    offers = [offer for offer in await renting.provider.offers() if offer.gpu_type == "RTX 4090"]
    priced = {(offer.resource_id, offer.ref["cloud"]): offer.hourly_rate for offer in offers}
    assert priced == {
        ("gpu-rtx4090", "SECURE"): 0.44,
        ("gpu-rtx4090-x2", "SECURE"): 0.88,
        ("gpu-rtx4090-x4", "SECURE"): 1.76,
        ("gpu-rtx4090-x8", "SECURE"): 3.52,
        ("gpu-rtx4090", "COMMUNITY"): 0.31,
        ("gpu-rtx4090-x2", "COMMUNITY"): 0.62,
        ("gpu-rtx4090-x4", "COMMUNITY"): 1.24,
    }


async def test_what_is_sold_out_is_listed_and_what_runs_no_cuda_is_not(renting: Renting) -> None:
    offers = {offer.resource_id: offer for offer in await renting.provider.offers()}
    assert not offers["gpu-l4"].available
    assert offers["gpu-a100-80gb"].available
    assert not any("mi300x" in name for name in offers)
    with pytest.raises(NoCapacity):
        await renting.provider.rent(offers["gpu-l4"], order())


async def test_stock_is_asked_for_as_many_gpus_as_a_job_needs(renting: Renting) -> None:
    def available(offers: list[Offer]) -> set[str]:
        return {offer.resource_id for offer in offers if offer.available}

    assert "gpu-h100-80gb" in available(await offers_for(renting.provider, 1))
    pairs = {name for name in available(await offers_for(renting.provider, 2)) if name.endswith("-x2")}
    assert pairs == {"gpu-rtx4090-x2", "gpu-a100-80gb-x2"}  # of an H100 there is one here and one there
    offers = {offer.resource_id: offer for offer in await renting.provider.offers()}
    with pytest.raises(NoCapacity):
        await renting.provider.rent(offers["gpu-h100-80gb-x2"], order())


async def test_the_chosen_cloud_and_number_are_rented(renting: Renting) -> None:
    offers = {
        offer.resource_id: offer for offer in await renting.provider.offers() if offer.ref["cloud"] == "COMMUNITY"
    }
    rented = await renting.provider.rent(offers["gpu-rtx4090-x2"], order())
    assert rented.hourly_rate == pytest.approx(0.62)
    asked = renting.behind(rented).details["asked"]
    assert (asked["cloud"], asked["gpu"]["count"], asked["disk"]) == ("COMMUNITY", 2, 20)


async def test_a_pod_may_end_itself_and_no_other_with_the_key_it_finds(renting: Renting) -> None:
    rented, other = await renting.rent(), await renting.rent()
    key = renting.behind(rented).environment["RUNPOD_API_KEY"]
    async with httpx.AsyncClient(base_url=renting.address, headers={"Authorization": f"Bearer {key}"}) as pod:
        assert (await pod.delete(f"/v2/pods/{other.id}")).status_code == 401
        assert (await pod.get("/v2/pods")).status_code == 401
        assert (await pod.delete(f"/v2/pods/{rented.id}")).status_code == 204
    assert [machine.id for machine in await renting.provider.machines()] == [other.id]


async def test_actions_are_those_of_a_pods_status(renting: Renting) -> None:
    rented = await renting.rent()
    await renting.becomes(rented.id, MachineState.RUNNING)
    async with httpx.AsyncClient(base_url=renting.address, headers={"Authorization": f"Bearer {GOOD}"}) as client:

        async def act(action: str) -> int:
            return (
                await client.post(f"/v2/pods/{rented.id}/action", content=json.dumps({"action": action}))
            ).status_code

        assert await act("start") == 409
        assert await act("stop") == 200
        stopped = await renting.becomes(rented.id, MachineState.ENDED)
        assert stopped.hourly_rate is None
        assert await act("restart") == 409
        assert await act("start") == 400  # its GPUs are somebody else's by now
        assert await act("terminate") == 204
        assert await act("terminate") == 404


async def test_an_order_that_breaks_the_schema_is_refused_by_the_simulator_too(renting: Renting) -> None:
    async with httpx.AsyncClient(base_url=renting.address, headers={"Authorization": f"Bearer {GOOD}"}) as client:
        body = {"name": "n", "image": "i", "gpu": {"id": "NVIDIA L4"}, "disk": 5}
        broken = [body | {"bogus": 1}, body | {"env": {"A": 1}}, {"name": "n"}, [], body | {"disk": 0}]
        assert [(await client.post("/v2/pods", json=one)).status_code for one in broken] == [422] * 5
        against = [body | {"cpu": {}}, {name: body[name] for name in ("name", "image", "gpu")}]
        assert [(await client.post("/v2/pods", json=one)).status_code for one in against] == [400] * 2
    assert renting.cloud.machines == {}
