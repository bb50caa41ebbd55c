"""vLLM as a host, against a simulated server: what is peculiar to it, beside the contract of all hosts."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.hosts.base import Wanted
from infra.hosts.openai_door import OpenAIDoor
from infra.hosts.vllm import Vllm
from infra.providers.base import Account
from infra.simulators.vllm import VllmServer, create_vllm
from peft_studio.errors import InvalidConfig, ResourceUnavailable
from tests.loopback import on_loopback

pytestmark = pytest.mark.anyio
NAME = "pst-abc123-0f0f0f0f"
PROMPT = "Once upon a time"
OPENAI = OpenAIDoor("vllm", Account("", {}))


@pytest.fixture
def server() -> VllmServer:
    return VllmServer()


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    folder = tmp_path / "adapters" / "job_1"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": 8}))
    return Wanted(name=NAME, folder=folder, base_model="org/model", rank=8)


@contextmanager
def host_of(server: VllmServer, **values: str) -> Generator[Vllm]:
    with on_loopback(create_vllm(server)) as url:
        yield Vllm(Account(url, {"base_url": url, **values}))


async def test_the_token_that_ends_an_answer_is_not_among_those_that_were_said(
    server: VllmServer, wanted: Wanted
) -> None:
    with host_of(server) as host:
        hosted = await host.deploy(wanted)
        for question in (PROMPT, [{"role": "user", "content": PROMPT}]):
            whole = await host.say(hosted, NAME, question, 20)
            assert len(whole.tokens) == len(whole.logprobs) == len(whole.top) == 12 and all(whole.tokens)
            assert (await host.say(hosted, NAME, question, 8)).tokens == whole.tokens[:8]


async def test_a_server_that_sees_the_adapters_elsewhere_is_told_where(
    server: VllmServer, wanted: Wanted, tmp_path: Path
) -> None:
    seen = tmp_path / "mounted"
    wanted.folder.parent.rename(seen)
    with host_of(server, adapters_path=str(seen)) as host:
        await host.deploy(wanted)
    assert server.adapters == {NAME: str(seen / wanted.folder.name)}


async def test_what_stands_against_it_is_said_with_the_field(server: VllmServer, wanted: Wanted) -> None:
    with host_of(server) as host:
        server.max_lora_rank = 4
        with pytest.raises(InvalidConfig, match="rank 8 is greater") as refused:
            await host.deploy(wanted)
        assert refused.value.details["field"] == "adapter_id"
        with pytest.raises(InvalidConfig, match="adapters_path") as unseen:
            await host.deploy(wanted.model_copy(update={"folder": Path("/nowhere")}))
        assert unseen.value.details["field"] == "platform"
        server.runtime_updating = False
        with pytest.raises(InvalidConfig, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
            await host.deploy(wanted)
    assert server.adapters == {}


async def test_what_a_prompt_may_not_be_is_named(server: VllmServer, wanted: Wanted) -> None:
    with host_of(server) as host:
        hosted = await host.deploy(wanted)
        with pytest.raises(InvalidConfig) as refused:
            await host.ask(hosted, PROMPT, chat=False, max_tokens=5000, temperature=0)
        assert refused.value.details["field"] == "prompt" and "maximum context length" in refused.value.message


async def test_how_busy_it_is_is_seen_from_one_look_to_the_next(server: VllmServer, wanted: Wanted) -> None:
    with host_of(server) as host:
        hosted = await host.deploy(wanted)
        assert await host.metrics(hosted) is None  # nothing to compare with yet
        for _ in range(3):
            await host.say(hosted, NAME, PROMPT, 8)
        second = await host.metrics(hosted)
    assert second and (second.requests_per_minute, second.avg_latency_ms) == (3, 250.0)


async def test_a_request_is_handed_on_and_a_refusal_is_in_our_words(server: VllmServer, wanted: Wanted) -> None:
    body = {"model": "deploy_1", "messages": [{"role": "user", "content": PROMPT}], "stream": True}
    with host_of(server) as host:
        door = host.door(await host.deploy(wanted))
        answer = await OPENAI.forward(door, "/chat/completions", body)
        streamed = b"".join([piece async for piece in answer.pieces()])
        assert answer.media_type == "text/event-stream" and streamed.endswith(b"data: [DONE]\n\n")
        server.refusals = 1
        with pytest.raises(ResourceUnavailable, match="503"):
            await OPENAI.forward(door, "/chat/completions", body)
