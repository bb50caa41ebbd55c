"""What is peculiar to Kubernetes: names that are taken once, pods that wait, ends that are told apart."""

from collections.abc import Iterator

import pytest

from infra.providers.base import Account, MachineState, NoCapacity
from infra.providers.kubernetes import Kubernetes
from infra.providers.kubernetes_jobs import asked, rented
from infra.providers.kubernetes_shapes import Job, Pod
from infra.simulators.accounts import GOOD
from infra.simulators.faults import Fault, FaultKind
from infra.simulators.kubernetes import HOURLY_RATE, create_kubernetes
from infra.simulators.loopback import served
from peft_studio.errors import CredentialRefused, InvalidConfig, ResourceUnavailable
from tests.integration.providers.renting import Renting, eventually, order, renting_from
from tests.integration.providers.vendors import VENDORS

pytestmark = pytest.mark.anyio
[VENDOR] = [vendor for vendor in VENDORS if vendor.name == "kubernetes"]


@pytest.fixture
def renting() -> Iterator[Renting]:
    with renting_from(VENDOR) as renting:
        yield renting


async def test_offers_are_the_kinds_of_gpus_of_the_nodes_at_the_owners_price(renting: Renting) -> None:
    offers = {offer.resource_id: offer for offer in await renting.provider.offers()}
    assert set(offers) == {f"gpu-{kind}{count}" for kind in ("a100-80gb", "t4") for count in ("", "-x2", "-x4")} | {
        "gpu-a100-80gb-x8"
    }
    two = offers["gpu-a100-80gb-x2"]
    assert (two.gpu_type, two.vram_gb, two.cpu_cores) == ("NVIDIA A100 SXM4 80GB", 80.0, 31)
    assert two.hourly_rate == 2 * HOURLY_RATE
    assert two.ram_gb == pytest.approx(137.4, abs=0.1)


async def test_who_may_not_list_nodes_is_offered_a_gpu_of_which_nothing_is_known(renting: Renting) -> None:
    cloud = renting.cloud
    with served(create_kubernetes(cloud, may_list_nodes=False)) as address:
        provider = Kubernetes(Account(address, {"token": GOOD}))
        [offer] = await provider.offers()
        assert (offer.resource_id, offer.gpu_type, offer.vram_gb, offer.ram_gb) == ("gpu", None, None, None)
        assert (await provider.rent(offer, order())).state is MachineState.BOOTING


async def test_a_job_without_a_pod_says_what_it_waits_for(renting: Renting) -> None:
    with served(create_kubernetes(renting.cloud, gpu_quota=1)) as address:
        provider = Kubernetes(Account(address, {"token": GOOD}))
        offer = next(offer for offer in await provider.offers() if offer.gpu_count == 1)
        first, second = await provider.rent(offer, order()), await provider.rent(offer, order())
        waiting = await provider.machine(second.id)
        assert waiting and waiting.state is MachineState.BOOTING
        assert waiting.reason.startswith("FailedCreate: ") and "exceeded quota" in waiting.reason
        assert [one.reason for one in await provider.machines() if one.id == second.id] == ["There is no pod yet."]
        await provider.release(first.id)

        async def runs() -> bool | None:
            machine = await provider.machine(second.id)
            return (machine is not None and machine.state is MachineState.RUNNING) or None

        assert await eventually(runs)


async def test_a_name_is_rented_once_however_often_it_is_asked_for(renting: Renting) -> None:
    offer, wanted = await renting.cheapest(), order()
    first = await renting.provider.rent(offer, wanted)
    again = await renting.provider.rent(offer, wanted)
    assert again.id == first.id
    assert len(renting.cloud.machines) == 1


async def test_a_pod_without_a_node_waits_and_says_for_what(renting: Renting) -> None:
    offer = next(offer for offer in await renting.provider.offers() if offer.resource_id == "gpu-t4-x4")
    first = await renting.provider.rent(offer, order())
    second = await renting.provider.rent(offer, order())
    await renting.becomes(first.id, MachineState.RUNNING)
    waiting = await renting.becomes(second.id, MachineState.BOOTING)
    assert waiting.reason.startswith("Unschedulable: ") and "nvidia.com/gpu" in waiting.reason
    await renting.provider.release(first.id)
    assert (await renting.becomes(second.id, MachineState.RUNNING)).reason == ""


async def test_a_node_that_was_removed_leaves_the_pod_without_one(renting: Renting) -> None:
    offer = await renting.cheapest()
    renting.cloud.faults.add(Fault(kind=FaultKind.STALE_OFFER))
    machine = await renting.provider.rent(offer, order())
    assert (await renting.becomes(machine.id, MachineState.BOOTING)).reason.startswith("Unschedulable: ")


async def test_an_image_that_cannot_be_had_is_named(renting: Renting) -> None:
    offer = await renting.cheapest()
    renting.fail(FaultKind.ENDLESS_BOOT)
    machine = await renting.provider.rent(offer, order())

    async def said() -> str | None:
        shown = await renting.provider.machine(machine.id)
        return shown.reason or None if shown else None

    assert await eventually(said) == 'ImagePullBackOff: Back-off pulling image "ghcr.io/peft-studio/trainer:1"'


async def test_a_used_up_quota_is_told_from_a_token_without_leave(renting: Renting) -> None:
    offer = await renting.cheapest()
    renting.fail(FaultKind.NO_CAPACITY)
    with pytest.raises(NoCapacity, match="quota"):
        await renting.provider.rent(offer, order())


async def test_a_namespace_that_is_not_there_is_named(renting: Renting) -> None:
    offer = await renting.cheapest()
    provider = Kubernetes(Account(renting.address, {"token": GOOD, "namespace": "elsewhere"}))
    with pytest.raises(ResourceUnavailable, match="no namespace 'elsewhere'"):
        await provider.rent(offer, order())


async def test_an_order_that_the_cluster_refuses_names_the_field_alone(renting: Renting) -> None:
    wanted = order(CLAIM="https://studio/claim").model_copy(update={"name": "Not_A_Name"})
    with pytest.raises(InvalidConfig, match=r"metadata\.name") as caught:
        await renting.provider.rent(await renting.cheapest(), wanted)
    assert "claim" not in str(caught.value)


async def test_the_cluster_ends_a_job_at_its_deadline(renting: Renting) -> None:
    wanted = order().model_copy(update={"max_seconds": 1})
    machine = await renting.provider.rent(await renting.cheapest(), wanted)
    ended = await renting.becomes(machine.id, MachineState.ENDED)
    assert (ended.exit_code, ended.reason) == (None, "DeadlineExceeded")


@pytest.mark.parametrize(
    ("script", "exit_code", "reason"), [("exit 0", 0, ""), ("exit 7", 7, ""), ("kill -9 $$", 137, "OOMKilled")]
)
async def test_a_command_that_ends_tells_how(renting: Renting, script: str, exit_code: int, reason: str) -> None:
    machine = await renting.rent("sh", "-c", script)
    ended = await renting.becomes(machine.id, MachineState.ENDED)
    assert (ended.exit_code, ended.reason) == (exit_code, reason)


async def test_a_machine_may_save_its_work_when_it_is_released_and_is_listed_until_it_has(renting: Renting) -> None:
    machine = await renting.rent(
        "sh", "-c", 'trap "sleep 0.5; touch saved; exit 0" TERM; touch ready; while :; do sleep 0.02; done'
    )
    behind = renting.behind(machine)
    await renting.becomes(machine.id, MachineState.RUNNING)
    while not (behind.home / "ready").exists():
        await renting.provider.machine(machine.id)
    await renting.provider.release(machine.id)
    assert await renting.listed(machine.name) is not None
    await renting.goes(machine.name)
    assert (behind.home / "saved").exists()


def test_a_job_has_neither_the_clusters_token_nor_more_rights_than_it_needs() -> None:
    spec = asked(order(), "Tesla-T4", 2)["spec"]
    pod = spec["template"]["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"], pod["restartPolicy"]) == (0, 600, "Never")
    assert pod["automountServiceAccountToken"] is False
    assert pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is False
    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "Tesla-T4"}


@pytest.mark.parametrize(
    ("status", "state", "reason"),
    [
        (
            {"phase": "Failed", "reason": "Evicted", "message": "low on memory"},
            MachineState.LOST,
            "Evicted: low on memory",
        ),
        ({"phase": "Failed", "reason": "UnexpectedAdmissionError"}, MachineState.LOST, "UnexpectedAdmissionError"),
        ({"phase": "Unknown"}, MachineState.LOST, "Its node does not answer."),
        ({"phase": "Running", "reason": ""}, MachineState.RUNNING, ""),
        ({"phase": "Pending", "containerStatuses": None, "conditions": None}, MachineState.BOOTING, ""),
        (
            {
                "phase": "Failed",
                "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}],
                "containerStatuses": [{"state": {"terminated": {"exitCode": 143, "reason": "Error"}}}],
            },
            MachineState.LOST,
            "PreemptionByScheduler",
        ),
        (
            {
                "phase": "Pending",
                "containerStatuses": [{"state": {"waiting": {"reason": "CreateContainerConfigError"}}}],
            },
            MachineState.BOOTING,
            "CreateContainerConfigError",
        ),
    ],
)
def test_a_pods_status_is_understood(status: dict[str, object], state: MachineState, reason: str) -> None:
    job = Job.model_validate({"metadata": {"name": "a"}, "spec": {}, "status": {}})
    machine = rented(job, [Pod.model_validate({"metadata": {"name": "a-x"}, "status": status})])
    assert (machine.state, machine.reason) == (state, reason)


def test_a_pod_that_is_gone_from_a_job_that_failed_was_taken_away() -> None:
    failed = {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}
    job = Job.model_validate({"metadata": {"name": "a", "labels": None}, "status": failed})
    assert rented(job, []).state is MachineState.LOST


async def test_a_cluster_whose_certificate_nobody_vouches_for_is_not_asked(renting: Renting) -> None:
    with pytest.raises(InvalidConfig, match="ca_certificate"):
        await Kubernetes(Account(renting.address, {"token": GOOD, "ca_certificate": "no PEM"})).offers()


async def test_a_token_of_somebody_else_is_refused(renting: Renting) -> None:
    with pytest.raises(CredentialRefused):
        await Kubernetes(Account(renting.address, {"token": "another"})).machines()
