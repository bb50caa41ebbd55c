"""What is peculiar to Modal: what its own library makes of a deployment, seen from a simulated Modal."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from infra.hosts.modal import Modal
from infra.hosts.modal_apps import ModalApps
from infra.providers.base import Account
from infra.simulators import grpc
from infra.simulators.accounts import GOOD
from infra.simulators.exchange import Asked, Reply, application
from infra.simulators.faults import Fault, FaultKind
from infra.simulators.hosting import Hosting
from infra.simulators.loopback import served
from infra.simulators.modal import TOKEN_ID, create_modal
from peft_studio.errors import CredentialRefused, InvalidConfig, ResourceUnavailable
from peft_studio.ports import free_port
from tests.integration.hosts.rows import ROWS
from tests.integration.hosts.serving import PROMPT, Serving, eventually, serving_at

pytestmark = pytest.mark.anyio
MODAL = next(row for row in ROWS if row.name == "modal")
HUB_TOKEN = "hf_reads-what-is-private"


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    with serving_at(MODAL, tmp_path) as serving:
        yield serving


def with_hub_token(serving: Serving) -> Modal:
    return Modal(Account(serving.address, {"token_id": TOKEN_ID, "token_secret": GOOD, "hub_token": HUB_TOKEN}))


async def test_an_app_has_the_machines_that_are_wanted_and_takes_many_requests_at_once(serving: Serving) -> None:
    wanted = serving.wanted(instance_type="H100:2", min_replicas=0, max_replicas=3, auto_scaling=True)
    await serving.host.deploy(wanted)
    [deployed] = serving.hosting.deployments
    function = deployed.details["function"]
    assert (function.resources.gpu_config.gpu_type, function.resources.gpu_config.count) == ("H100", 2)
    scaling = function.autoscaler_settings
    assert (scaling.min_containers, scaling.max_containers, scaling.scaledown_window) == (0, 3, 900)
    # Modal starts a container for each request that comes meanwhile, unless it is told that one takes several.
    assert function.max_concurrent_inputs == 100
    assert (function.webhook_config.web_server_port, function.startup_timeout_secs) == (8000, 1800)


async def test_keys_go_into_a_secret_and_nowhere_else(serving: Serving) -> None:
    await with_hub_token(serving).deploy(serving.wanted())
    [deployed] = serving.hosting.deployments
    environment = deployed.details["environment"]
    assert environment.keys() == {"VLLM_API_KEY", "HF_TOKEN"} and environment["HF_TOKEN"] == HUB_TOKEN
    assert GOOD not in environment.values()
    elsewhere = [one for one in serving.exchanges if not one.path.endswith("/SecretGetOrCreate")]
    assert len(elsewhere) > 10
    for value in environment.values():
        assert all(value.encode() not in one.sent + one.answered for one in elsewhere)


async def test_no_files_of_the_studio_are_sent(serving: Serving) -> None:
    await serving.host.deploy(serving.wanted())
    asked = {one.path.rpartition("/")[2] for one in serving.exchanges}
    assert "FunctionCreate" in asked and not asked & {"MountPutFile", "BlobCreate"}


async def test_the_function_starts_vllm_where_modal_expects_it(serving: Serving, tmp_path: Path) -> None:
    wanted = serving.wanted()
    await with_hub_token(serving).deploy(wanted)
    [deployed] = serving.hosting.deployments
    (tmp_path / "function").write_bytes(deployed.details["function"].function_serialized)
    port, programs = free_port(), tmp_path / "programs"
    programs.mkdir()
    _program(programs / "hf", f'echo "$@" > {tmp_path}/fetched')
    _program(programs / "vllm", f'exec {sys.executable} -m infra.simulators.vllm_serve "$@" --port {port}')
    container = f"import pickle; pickle.load(open({str(tmp_path / 'function')!r}, 'rb'))()"
    environment = {**os.environ, **deployed.details["environment"], "PATH": f"{programs}:{os.environ['PATH']}"}
    process = subprocess.Popen([sys.executable, "-c", container], env=environment, start_new_session=True)
    try:
        key = {"Authorization": f"Bearer {deployed.details['environment']['VLLM_API_KEY']}"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/v1", headers=key) as client:

            async def models() -> Any:
                try:
                    return (await client.get("/models")).json()
                except httpx.TransportError:
                    return None

            assert [one["id"] for one in (await eventually(models))["data"]] == ["base", wanted.name]
            assert (await client.get("/models", headers={"Authorization": "Bearer another"})).status_code == 401
        assert (tmp_path / "fetched").read_text() == f"download me/one --local-dir /tmp/adapter --revision {'c' * 40}\n"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


async def test_an_app_answers_to_the_key_that_follows_from_the_token_and_to_no_other(serving: Serving) -> None:
    running = await serving.running(serving.wanted())
    assert (await serving.host.ask(running, PROMPT, chat=True, max_tokens=4, temperature=0.0)).tokens_generated == 4
    with pytest.raises(CredentialRefused):
        await serving.host_with("of-somebody-else").ask(running, PROMPT, chat=True, max_tokens=4, temperature=0.0)


async def test_the_studio_goes_on_while_modal_takes_its_time(serving: Serving) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    counting = asyncio.create_task(count())
    serving.fail(FaultKind.TIMEOUT_AFTER_CREATE, 0.3)
    await serving.host.deploy(serving.wanted())
    counting.cancel()
    assert turns > 5


async def test_a_failure_that_modals_library_asks_again_after_deploys_once(tmp_path: Path) -> None:
    hosting, failures = Hosting(boot_seconds=0.0), ["AppPublish", "FunctionCreate", "AppStop"]
    modal = create_modal(hosting)

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        method = scope["path"].rpartition("/")[2]
        if method not in failures:
            return await modal(scope, receive, send)
        failures.remove(method)

        async def unheard(message: Any) -> None:
            """Have it done, and lose the answer."""

        await modal(scope, receive, unheard)

        async def broken(_: Asked) -> Reply:
            return grpc.failed(grpc.INTERNAL, "try again")

        return await application(broken)({**scope, "headers": []}, receive, send)

    with serving_at(MODAL, tmp_path) as other, served(failing) as address:
        host, wanted = MODAL.host(MODAL.account(address), 0.1, 5.0), other.wanted()
        await host.deploy(wanted)
        assert hosting.left() == [f"deployment {wanted.name}"]
        await host.remove(wanted.name)
        assert failures == [] and hosting.left() == [] and len(hosting.deployments) == 1


async def test_a_line_that_breaks_while_an_image_is_built_is_no_fault_of_the_request(tmp_path: Path) -> None:
    hosting, loop, lines = Hosting(boot_seconds=0.0), asyncio.get_running_loop(), set[asyncio.StreamWriter]()
    modal, cuts = create_modal(hosting), 0

    def cut() -> None:
        for line in lines:
            line.close()

    async def building(scope: Any, receive: Any, send: Any) -> None:
        nonlocal cuts
        if scope["path"].endswith("/ImageJoinStreaming"):
            cuts += 1
            loop.call_soon_threadsafe(cut)
            await asyncio.sleep(5)
        await modal(scope, receive, send)

    async def piped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.add(writer)
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()
        lines.discard(writer)

    with serving_at(MODAL, tmp_path) as other, served(building) as address:

        async def through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there = await asyncio.open_connection("127.0.0.1", urlsplit(address).port)
            await asyncio.gather(piped(reader, there[1]), piped(there[0], writer))

        async with await asyncio.start_server(through, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ResourceUnavailable):
                await MODAL.host(MODAL.account(f"http://127.0.0.1:{port}"), 0.1, 5.0).deploy(other.wanted())
            cut()
    assert cuts > 1 and hosting.left() == []


async def test_an_image_that_cannot_be_built_is_told_in_modals_words(serving: Serving) -> None:
    serving.hosting.faults.add(Fault(kind=FaultKind.FAILS_LOADING))
    with pytest.raises(ResourceUnavailable, match="No matching distribution found for vllm"):
        await serving.host.deploy(serving.wanted())
    assert serving.hosting.left() == [] and await serving.host.names() == []


async def test_what_cannot_be_served_there_is_refused_with_the_field(serving: Serving) -> None:
    wanted = serving.wanted()
    for other, field in (
        (wanted.model_copy(update={"repository": None}), "adapter_id"),
        (wanted.model_copy(update={"rank": 1024}), "adapter_id"),
        (wanted.model_copy(update={"base_model": "/models/mine"}), "adapter_id"),
        (serving.wanted(instance_type="a graphics card"), "instance_type"),
        (serving.wanted(instance_type="B9000"), "instance_type"),  # as Modal names them, but it has none
    ):
        with pytest.raises(InvalidConfig) as refused:
            await serving.host.deploy(other)
        assert refused.value.details["field"] == field
    assert serving.hosting.left() == []


async def test_without_its_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modal", None)
    with pytest.raises(InvalidConfig, match=r"pip install 'peft-studio\[modal\]'"):
        await ModalApps(Account("", {"token_id": "ak-1", "token_secret": "as-1"})).names()
