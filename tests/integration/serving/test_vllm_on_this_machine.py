"""Deployments on this machine that vLLM serves: its command is the simulated one, in processes of its own."""

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from infra.serving.endpoint_client import EndpointClient
from infra.serving.keeper import Keeper
from infra.serving.records import Deployment
from infra.settings import LocalEngine, Settings
from peft_studio.deployments import DeploymentStatus
from peft_studio.effect import Verdict
from peft_studio.errors import InvalidConfig
from tests.adapter_files import shapes, write_adapter
from tests.integration.serving.keeping import Machine
from tests.vllm_machine import install_vllm

pytestmark = pytest.mark.anyio


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return install_vllm(tmp_path, monkeypatch)


def adapter(folder: Path, rank: int) -> Path:
    folder.mkdir()
    write_adapter(folder / "adapter_model.safetensors", shapes(rank))
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def settings(studio_settings: Settings) -> Settings:
    return studio_settings.model_copy(update={"local_engine": LocalEngine.VLLM})


@pytest.fixture
async def machine(settings: Settings, program: Path, tmp_path: Path) -> AsyncIterator[Machine]:
    base = tmp_path / "base"
    base.mkdir()
    adapters = {name: adapter(tmp_path / name, rank) for name, rank in (("one", 4), ("two", 8), ("high", 128))}
    machine = Machine(settings, base, adapters)
    yield machine
    await machine.keeper.close()


def family_of(deployment: Deployment) -> tuple[psutil.Process, psutil.Process]:
    """The server of a deployment, and its engine."""
    port = str(deployment.endpoint).rsplit(":", 1)[1].removesuffix("/v1")
    for process in psutil.Process().children(recursive=True):
        if f"--port {port} " in " ".join(words := process.cmdline()) and "infra.simulators.vllm_serve" in words:
            [engine] = process.children()
            return process, engine
    raise AssertionError(f"nothing serves at {port}")


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


async def test_adapters_of_one_base_model_share_a_server_and_answer(machine: Machine) -> None:
    one, two = [await machine.running(await machine.deploy(kind)) for kind in ("one", "two")]
    assert one.endpoint == two.endpoint and one.engine is LocalEngine.VLLM
    assert await machine.says(one) != await machine.says(two)
    assert one.effect is not None and one.effect.verdict is Verdict.EFFECTIVE
    question = {"messages": [{"role": "user", "content": "the red cat"}], "stream": True}
    answer = await machine.deployments.forward(one, "/chat/completions", question)
    assert answer.media_type == "text/event-stream"
    assert b"".join([piece async for piece in answer.pieces()]).endswith(b"data: [DONE]\n\n")


async def test_how_busy_it_is_is_seen_from_one_look_to_the_next(machine: Machine) -> None:
    one = await machine.running(await machine.deploy("one"))
    assert await machine.deployments.load(one.deployment_id) is None
    for _ in range(3):
        await machine.says(one)
    load = await machine.deployments.load(one.deployment_id)
    assert load is not None and load.requests_per_minute == 3


async def test_a_killed_server_takes_its_engine_along_and_is_back_with_its_adapters(machine: Machine) -> None:
    deployed = [await machine.running(await machine.deploy(kind)) for kind in ("one", "two")]
    before = [await machine.says(deployment) for deployment in deployed]
    server, engine = family_of(deployed[0])
    server.send_signal(signal.SIGKILL)

    async def is_deploying() -> bool:
        return (await machine.records.get(deployed[0].deployment_id)).status is DeploymentStatus.DEPLOYING

    await machine.until(is_deploying)
    assert not is_alive(engine)
    assert [await machine.running(deployment) for deployment in deployed] == deployed
    assert [await machine.says(deployment) for deployment in deployed] == before


async def test_it_ends_with_its_keeper_and_with_its_last_deployment(machine: Machine, settings: Settings) -> None:
    one, two = [await machine.running(await machine.deploy(kind)) for kind in ("one", "two")]
    family = family_of(one)
    await machine.keeper.close()
    assert not any(map(is_alive, family))
    machine.keeper = Keeper(settings, machine.records)
    await machine.keeper.check()
    assert [await machine.running(one), await machine.running(two)] == [one, two]
    family = family_of(one)
    await machine.deployments.stop(one.deployment_id)
    await machine.keeper.check()
    async with EndpointClient(str(two.endpoint)) as endpoint:
        assert set(await endpoint.adapters()) == {two.deployment_id}
    await machine.deployments.stop(two.deployment_id)
    await machine.keeper.check()
    assert not any(map(is_alive, family))


async def test_what_it_refuses_is_said(machine: Machine) -> None:
    assert "greater than max_lora_rank 64" in await machine.failed(await machine.deploy("high"))
    one = await machine.running(await machine.deploy("one"))
    with pytest.raises(InvalidConfig, match="maximum context length") as refused:
        await machine.deployments.prompt(one.deployment_id, "Once", 5000)
    assert refused.value.details["field"] == "prompt"


@pytest.mark.parametrize("arguments", ["--no-such-thing", "--max-lora-rank 63"])
async def test_arguments_that_it_does_not_take_are_no_reason_to_try_again(
    machine: Machine, settings: Settings, arguments: str
) -> None:
    machine.keeper = Keeper(settings.model_copy(update={"vllm_arguments": arguments}), machine.records)
    assert arguments.split()[0] in await machine.failed(await machine.deploy("one"))


async def test_where_it_is_missing_a_deployment_says_so(machine: Machine, program: Path) -> None:
    program.unlink()
    assert "vllm cannot be started" in await machine.failed(await machine.deploy("one"))


async def test_the_token_of_endpoints_is_asked_for(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFT_STUDIO_ENDPOINT_TOKEN", "secret-of-endpoints")
    one = await machine.running(await machine.deploy("one"))
    assert await machine.says(one)
    monkeypatch.delenv("PEFT_STUDIO_ENDPOINT_TOKEN")
    async with EndpointClient(str(one.endpoint)) as stranger:
        with pytest.raises(Exception, match="401"):
            await stranger.adapters()
