"""
Modal as a host, with apps that are kept in memory in the place of its library, and a simulated vLLM where they answer.

What the library makes of Modal's private protocol is not tested: it cannot be emulated.
"""

import json
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest

from infra.hosts.base import Wanted
from infra.hosts.modal import Modal
from infra.hosts.modal_apps import App, ModalApps
from infra.providers.base import Account
from infra.simulators.vllm import VllmServer, create_vllm
from peft_studio.deployments import DeploymentConfig
from peft_studio.errors import CredentialRefused, InvalidConfig
from tests.loopback import on_loopback

pytestmark = pytest.mark.anyio
NAME = "pst-abc123-0f0f0f0f"
SECRET = "as-secret-of-the-token"
ACCOUNT = Account("", {"token_id": "ak-1", "token_secret": SECRET, "hub_token": "hf_reads"})


@dataclass
class AppsInMemory:
    """A workspace whose apps all answer at one address."""

    address: str = "http://127.0.0.1:9"
    apps: dict[str, App] = field(default_factory=dict[str, App])
    deployed: int = 0

    async def deploy(self, app: App) -> None:
        self.apps[app.name] = app
        self.deployed += 1

    async def url(self, name: str) -> str | None:
        return self.address if name in self.apps else None

    async def names(self) -> list[str]:
        return list(self.apps)

    async def stop(self, name: str) -> None:
        self.apps.pop(name, None)


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    return Wanted(name=NAME, folder=tmp_path, base_model="org/model", rank=12, repository="me/one", commit="c" * 40)


async def test_an_app_is_deployed_once_answers_to_its_own_key_and_is_stopped(wanted: Wanted, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8}))
    apps = AppsInMemory()
    host = Modal(ACCOUNT, apps)
    assert await host.look(NAME) is None
    for _ in range(2):
        hosted = await host.deploy(wanted)
    assert apps.deployed == 1 and await host.names() == [NAME]
    server = VllmServer(base="base", key=apps.apps[NAME].secrets["VLLM_API_KEY"], adapters={NAME: str(tmp_path)})
    with on_loopback(create_vllm(server)) as apps.address:
        hosted = await host.look(NAME)
        assert hosted is not None and hosted.base is not None
        assert (await host.ask(hosted, "Once", chat=True, max_tokens=4, temperature=0.0)).tokens_generated == 4
        assert (await host.say(hosted, NAME, "Once", 4)).tokens != (
            await host.say(hosted, hosted.base, "Once", 4)
        ).tokens
        other = Modal(Account("", {"token_id": "ak-2", "token_secret": "of-somebody-else"}), apps)
        with pytest.raises(CredentialRefused):
            await other.ask(hosted, "Once", chat=True, max_tokens=4, temperature=0.0)
    for _ in range(2):
        await host.remove(NAME)
    assert await host.look(NAME) is None and apps.apps == {}


async def test_an_app_serves_the_very_commits_on_as_many_machines_as_are_wanted(wanted: Wanted) -> None:
    apps = AppsInMemory()
    config = DeploymentConfig(instance_type="H100:2", min_replicas=0, max_replicas=3, auto_scaling=True)
    await Modal(ACCOUNT, apps).deploy(wanted.model_copy(update={"config": config, "revision": "b" * 40}))
    app = apps.apps[NAME]
    assert (app.gpu, app.least, app.most) == ("H100:2", 0, 3)
    shell = app.command[-1]
    for part in (f"--revision {'c' * 40} && exec vllm serve org/model", f"--revision {'b' * 40}", "--max-lora-rank 16"):
        assert part in shell
    seen = f"{app!r} {app.command}"
    assert SECRET not in f"{seen} {dict(app.secrets)}" and "hf_reads" not in seen


async def test_what_cannot_be_served_there_is_refused_with_the_field(wanted: Wanted) -> None:
    host = Modal(ACCOUNT, AppsInMemory())
    machine = DeploymentConfig(instance_type="a graphics card")
    for changes, field_name in (
        ({"repository": None}, "adapter_id"),
        ({"rank": 1024}, "adapter_id"),
        ({"base_model": "/models/mine"}, "adapter_id"),
        ({"config": machine}, "instance_type"),
    ):
        with pytest.raises(InvalidConfig) as refused:
            await host.deploy(wanted.model_copy(update=changes))
        assert refused.value.details["field"] == field_name


@pytest.mark.skipif(find_spec("modal") is not None, reason="the library is there")
async def test_without_its_library_it_says_what_to_install() -> None:
    with pytest.raises(InvalidConfig, match=r"pip install 'peft-studio\[modal\]'"):
        await ModalApps(ACCOUNT).names()
