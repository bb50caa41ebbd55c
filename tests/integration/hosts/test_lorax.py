"""LoRAX as a host, against a simulated server: what is peculiar to it, beside the contract of all hosts."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.hosts.base import Wanted
from infra.hosts.lorax import Lorax
from infra.hosts.openai_door import OpenAIDoor
from infra.providers.base import Account
from infra.simulators.accounts import GOOD
from infra.simulators.lorax import LoraxServer, create_lorax
from peft_studio.effect import TOP
from peft_studio.errors import InvalidConfig, ResourceUnavailable
from tests.adapter_files import shapes, write_adapter
from tests.loopback import on_loopback

pytestmark = pytest.mark.anyio
NAME = "pst-abc123-0f0f0f0f"
PROMPT = "Once upon a time"
CHAT = [{"role": "user", "content": PROMPT}]
OPENAI = OpenAIDoor("lorax", Account("", {}))


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    folder = tmp_path / "adapters" / "job_1"
    folder.mkdir(parents=True)
    write_adapter(folder / "adapter_model.safetensors", shapes(rank=8))
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    (folder / "probes.json").write_text("rows of somebody's data set")
    return Wanted(name=NAME, folder=folder, base_model="org/model", rank=8)


@contextmanager
def host_of(server: LoraxServer, folder: Path, **values: str) -> Generator[Lorax]:
    with on_loopback(create_lorax(server)) as url:
        yield Lorax(Account(url, {"base_url": url, "api_key": GOOD, **values}, folder))


async def test_what_is_laid_out_for_the_server_is_what_makes_an_adapter_and_no_more(
    wanted: Wanted, tmp_path: Path
) -> None:
    with host_of(LoraxServer(), tmp_path / "lorax") as host:
        await host.deploy(wanted)
        assert [one.name for one in (tmp_path / "lorax").iterdir()] == [NAME]
        laid_out = {one.name for one in (tmp_path / "lorax" / NAME).iterdir()}
        assert laid_out == {"adapter_config.json", "adapter_model.safetensors"}
        await host.remove(NAME)
        assert list((tmp_path / "lorax").iterdir()) == []


async def test_a_server_that_sees_the_folder_elsewhere_is_told_where(wanted: Wanted, tmp_path: Path) -> None:
    server, mounted = LoraxServer(), tmp_path / "mounted"
    (tmp_path / "lorax").mkdir()
    mounted.symlink_to(tmp_path / "lorax")
    with host_of(server, tmp_path / "lorax", adapters_path=str(mounted)) as host:
        hosted = await host.deploy(wanted)
    assert hosted.model == str(mounted / NAME) and list(server.voices) == [hosted.model]


async def test_what_stands_against_it_is_said_with_the_field(wanted: Wanted, tmp_path: Path) -> None:
    with host_of(LoraxServer(), tmp_path / "lorax", adapters_path="/nowhere") as host:
        with pytest.raises(InvalidConfig, match="adapters_path") as unseen:
            await host.deploy(wanted)
        assert unseen.value.details["field"] == "platform"
    with host_of(LoraxServer(reservation=16), tmp_path / "other") as host:
        with pytest.raises(InvalidConfig, match="larger than adapter memory reservation") as refused:
            await host.deploy(wanted)
        assert refused.value.details["field"] == "adapter_id"


async def test_files_that_cannot_be_copied_leave_nothing(wanted: Wanted, tmp_path: Path) -> None:
    (wanted.folder / "adapter_model.safetensors").unlink()
    with host_of(LoraxServer(), tmp_path / "lorax") as host:
        with pytest.raises(ResourceUnavailable, match="cannot be copied"):
            await host.deploy(wanted)
        assert await host.look(NAME) is None
    assert list((tmp_path / "lorax").iterdir()) == []


async def test_the_token_that_ends_an_answer_is_none_and_each_has_its_alternatives(
    wanted: Wanted, tmp_path: Path
) -> None:
    with host_of(LoraxServer(), tmp_path / "lorax") as host:
        hosted = await host.deploy(wanted)
        whole = await host.say(hosted, str(hosted.model), PROMPT, 20)
        assert len(whole.tokens) == len(whole.logprobs) == 12 and "</s>" not in whole.tokens
        assert {len(top) for top in whole.top} == {TOP}
        spoken = await host.say(hosted, str(hosted.model), CHAT, 20)
        assert spoken.tokens and spoken.logprobs == []


async def test_what_a_prompt_may_not_be_is_named(wanted: Wanted, tmp_path: Path) -> None:
    with host_of(LoraxServer(), tmp_path / "lorax") as host:
        hosted = await host.deploy(wanted)
        with pytest.raises(InvalidConfig, match="maximum context length") as refused:
            await host.ask(hosted, PROMPT, chat=False, max_tokens=5000, temperature=0)
        assert refused.value.details["field"] == "prompt"
        with pytest.raises(InvalidConfig, match="maximum context length"):
            await host.say(hosted, str(hosted.model), PROMPT, 5000)


async def test_a_request_is_handed_on_with_the_source_of_its_adapter(wanted: Wanted, tmp_path: Path) -> None:
    with host_of(LoraxServer(), tmp_path / "lorax") as host:
        hosted = await host.deploy(wanted)
        other = hosted.model_copy(update={"model": hosted.base})
        said: list[str] = []
        for one in hosted, other:
            answer = await OPENAI.forward(host.door(one), "/chat/completions", {"messages": CHAT, "max_tokens": 4})
            body = json.loads(b"".join([piece async for piece in answer.pieces()]))
            said.append(body["choices"][0]["message"]["content"])
    assert said[0] != said[1]


async def test_how_busy_it_is_is_seen_from_one_look_to_the_next(wanted: Wanted, tmp_path: Path) -> None:
    with host_of(LoraxServer(), tmp_path / "lorax") as host:
        hosted = await host.deploy(wanted)
        assert await host.metrics(hosted) is None
        for _ in range(3):
            await host.ask(hosted, PROMPT, chat=True, max_tokens=4, temperature=0)
        seen = await host.metrics(hosted)
    assert seen and (seen.requests_per_minute, seen.avg_latency_ms) == (3, 250.0)
