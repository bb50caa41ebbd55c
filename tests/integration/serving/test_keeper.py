"""Deployments on this machine, with real endpoint processes and records in memory."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from infra.serving.endpoint_client import EndpointClient
from infra.serving.keeper import Keeper
from infra.serving.records import Deployment
from infra.settings import LocalEngine, Settings
from peft_studio.deployments import DeploymentStatus
from peft_studio.errors import Conflict, InvalidConfig, NotFound, ResourceUnavailable
from tests.integration.serving.keeping import Machine
from tests.vllm_machine import install_vllm, measured

pytestmark = pytest.mark.anyio
PRELOADED = ["torch", "transformers", "peft", "infra.serving.endpoint"]


@pytest.fixture(scope="module", autouse=True)
def warm() -> Iterator[None]:
    """Endpoints start from a process that has everything imported, as they do in the worker."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "warm.sock"
        server = subprocess.Popen([sys.executable, "-m", "infra.warm", "serve", str(path), *PRELOADED])
        os.environ["PEFT_STUDIO_WARM_SOCKET"] = str(path)
        os.environ["OMP_NUM_THREADS"] = "1"
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        yield
        del os.environ["PEFT_STUDIO_WARM_SOCKET"]
        del os.environ["OMP_NUM_THREADS"]
        server.kill()
        server.wait()


@pytest.fixture
async def machine(studio_settings: Settings, base_folder: Path, adapters: Mapping[str, Path]) -> AsyncIterator[Machine]:
    machine = Machine(studio_settings, base_folder, adapters)
    yield machine
    await machine.keeper.close()


def endpoints(url: str | None) -> list[psutil.Process]:
    """The processes that listen at an address: those that stand in for them are left out."""
    port = str(url).rsplit(":", 1)[1].removesuffix("/v1")
    found: list[psutil.Process] = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        is_endpoint = "infra.serving.endpoint" in " ".join(words) and f"--port {port} " in f"{' '.join(words)} "
        if is_endpoint and "infra.warm" not in words and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


async def test_deployments_of_one_base_model_share_an_endpoint_and_are_told_apart(machine: Machine) -> None:
    created = [await machine.deploy(kind) for kind in ("lora", "dora")]
    assert [deployment.status for deployment in created] == [DeploymentStatus.DEPLOYING] * 2
    lora, dora = [await machine.running(deployment) for deployment in created]
    assert lora.endpoint == dora.endpoint is not None
    assert len(endpoints(lora.endpoint)) == 1
    assert await machine.says(lora) != await machine.says(dora)
    load = await machine.deployments.load(lora.deployment_id)
    assert load is not None and load.requests_per_minute == 1


async def test_a_killed_endpoint_is_back_at_its_address_with_its_adapters(machine: Machine) -> None:
    lora, dora = [await machine.running(await machine.deploy(kind)) for kind in ("lora", "dora")]
    before = await machine.says(lora), await machine.says(dora)
    (process,) = endpoints(lora.endpoint)
    process.send_signal(signal.SIGKILL)
    with pytest.raises(ResourceUnavailable):
        await machine.says(lora)

    async def is_deploying() -> bool:
        return (await machine.records.get(lora.deployment_id)).status is DeploymentStatus.DEPLOYING

    await machine.until(is_deploying)
    again = [await machine.running(deployment) for deployment in (lora, dora)]
    assert again == [lora, dora]
    assert (await machine.says(lora), await machine.says(dora)) == before


async def test_deployments_outlive_their_keeper(machine: Machine, studio_settings: Settings) -> None:
    deployment = await machine.running(await machine.deploy("lora"))
    said = await machine.says(deployment)
    await machine.keeper.close()
    assert not endpoints(deployment.endpoint)
    machine.keeper = Keeper(studio_settings, machine.records)
    await machine.keeper.check()
    with pytest.raises(Conflict):
        await machine.says(deployment)
    assert await machine.running(deployment) == deployment
    assert await machine.says(deployment) == said


async def test_the_same_key_is_the_same_deployment_and_one_that_failed_starts_over(
    machine: Machine, tmp_path: Path
) -> None:
    first = await machine.deploy("lora", key="ab12", adapter=str(tmp_path))
    assert first.deployment_id == "deploy_ab12"
    assert (await machine.deploy("lora", key="ab12", adapter=str(tmp_path))) == first
    assert "There is no adapter" in await machine.failed(first)
    with pytest.raises(InvalidConfig, match="There is no adapter"):
        await machine.deployments.wait(first.deployment_id, 1)
    again = await machine.deploy("lora", key="ab12")
    assert (again.deployment_id, again.status) == (first.deployment_id, DeploymentStatus.DEPLOYING)
    await machine.running(again)


async def test_a_base_model_that_cannot_be_loaded_fails_its_deployments_with_the_reason(
    machine: Machine, tmp_path: Path
) -> None:
    deployment = await machine.deploy("lora", base_model=str(tmp_path))
    assert "cannot be loaded" in await machine.failed(deployment)
    with pytest.raises(Conflict):
        await machine.says(deployment)


async def test_a_removed_deployment_is_gone_and_the_last_one_takes_its_endpoint_along(machine: Machine) -> None:
    lora, dora = [await machine.running(await machine.deploy(kind)) for kind in ("lora", "dora")]

    async def remove(deployment: Deployment) -> None:
        removing = asyncio.create_task(machine.deployments.remove(deployment.deployment_id))

        async def is_removed() -> bool:
            return removing.done()

        await machine.until(is_removed)
        removing.result()
        with pytest.raises(NotFound):
            await machine.deployments.get(deployment.deployment_id)

    await remove(lora)
    async with EndpointClient(str(dora.endpoint)) as endpoint:
        assert set(await endpoint.adapters()) == {dora.deployment_id}
    await remove(dora)
    await machine.keeper.check()
    assert not endpoints(dora.endpoint)
    assert await machine.deployments.list() == []


async def test_prompts_that_cannot_be_answered_are_refused_with_the_field(machine: Machine) -> None:
    deployment = await machine.running(await machine.deploy("lora"))
    for prompt, max_tokens, temperature, field in [
        ("", 5, 0, "prompt"),
        ("x " * 300, 5, 0, "prompt"),
        ("x", 5000, 0, "max_tokens"),
        ("x", 5, -1, "temperature"),
    ]:
        for _ in range(2):
            with pytest.raises(InvalidConfig) as refused:
                await machine.deployments.prompt(deployment.deployment_id, prompt, max_tokens, temperature)
            assert refused.value.details["field"] == field


async def test_an_endpoint_that_could_not_be_started_is_started_at_the_next_look(
    machine: Machine, studio_settings: Settings
) -> None:
    studio_settings.logs.parent.mkdir(parents=True, exist_ok=True)
    studio_settings.logs.write_text("in the way")
    deployment = await machine.deploy("lora")
    with pytest.raises(FileExistsError):
        await machine.keeper.check()
    studio_settings.logs.unlink()
    assert (await machine.running(deployment)).endpoint


async def test_what_vllm_does_not_take_has_the_studios_own_endpoint_beside_it(
    machine: Machine, studio_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_vllm(tmp_path, monkeypatch)
    machine.keeper = Keeper(measured(studio_settings), machine.records)
    lora, dora = [await machine.running(await machine.deploy(kind)) for kind in ("lora", "dora")]
    assert (lora.engine, dora.engine) == (LocalEngine.VLLM, LocalEngine.OWN) and lora.endpoint != dora.endpoint
    assert (len(endpoints(lora.endpoint)), len(endpoints(dora.endpoint))) == (0, 1)
    assert await machine.says(lora) and await machine.says(dora)


@pytest.mark.parametrize("arguments", ["--no-such-thing", "--max-lora-rank 1"])
async def test_what_vllm_turns_out_not_to_serve_is_served_by_the_studio(
    machine: Machine, studio_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str
) -> None:
    install_vllm(tmp_path, monkeypatch)
    settings = measured(studio_settings).model_copy(update={"vllm_arguments": arguments})
    machine.keeper = Keeper(settings, machine.records)
    lora = await machine.running(await machine.deploy("lora"))
    assert lora.engine is LocalEngine.OWN and len(endpoints(lora.endpoint)) == 1
    assert await machine.says(lora)
