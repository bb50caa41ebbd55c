"""A publication whose processes are killed with half of the weights sent: nothing is seen, and it is done later."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from infra.registries.publications import ask_for, asked_for, carry_out, publications_of
from infra.registries.s3 import file_system
from infra.registries.sending import Sender
from infra.settings import Settings
from infra.simulators.accounts import GOOD
from infra.simulators.hub_uploads import UploadHub, create_upload_hub
from infra.simulators.loopback import served
from peft_studio.registries import HuggingFaceRegistry, Publication, PublicationStatus, Registry, S3Registry
from tests.integration.registries.published import here, stored
from tests.integration.registries.publishing import Publishing
from tests.integration.registries.stalling import Wire, stalling

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # huggingface_hub 2.4, in its LFS uploads
    pytest.mark.timeout(200),
]
WEIGHTS = os.urandom(24 << 20)  # two parts of S3's
HALF = 20 << 20
ROOT = Path(__file__).parents[3]


def kill_in_the_middle(order: Publishing, wire: Wire) -> None:
    """Publish until half of it is sent, and kill all who are at it."""
    command = [sys.executable, "-m", "tests.integration.registries.publishing"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT, start_new_session=True)
    try:
        assert process.stdin
        process.stdin.write(order.model_dump_json().encode())
        process.stdin.close()
        assert wire.stalled.wait(120)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def begun_and_killed(order: Publishing, registry: Registry, wire: Wire) -> None:
    """Have a publication asked for, begun and killed; it must be known what is still to be done."""
    ask_for(order.adapter, [registry], order.settings)
    await asyncio.to_thread(kill_in_the_middle, order, wire)
    assert asked_for(order.settings) == [order.adapter]
    (one,) = publications_of(Path(order.adapter.path).parent)
    assert one.status is PublicationStatus.PENDING


async def gone_on_with(order: Publishing, wire: Wire) -> Publication:
    """Do what whoever starts next does."""
    wire.open.set()
    sender = Sender(await order.credentials(), order.settings, (0.01,), here)
    (one,) = await carry_out(order.adapter, sender, order.settings)
    assert asked_for(order.settings) == []
    return one


async def test_a_half_sent_upload_to_a_hub_is_no_commit_and_is_sent_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # a push's own process has it so
    hub, data_dir = UploadHub(), tmp_path / "data"
    adapter = stored(Settings(data_dir=data_dir), tmp_path / "trained", WEIGHTS)
    with served(create_upload_hub(hub)) as address, stalling(address, HALF) as wire:
        order = Publishing(
            data_dir=str(data_dir),
            platform_urls={"huggingface": wire.url},
            adapter=adapter,
            platform="huggingface",
            values={"api_key": GOOD},
        )
        place = HuggingFaceRegistry(kind="huggingface", repository="me/half")
        await begun_and_killed(order, place, wire)
        assert (hub.received, dict(hub.repositories["me/half"].head.files)) == ([], {})
        done = await gone_on_with(order, wire)
    repository = hub.repositories["me/half"]
    assert (done.status, done.revision) == (PublicationStatus.PUBLISHED, repository.head.oid)
    assert len(repository.commits) == 2
    assert repository.head.files["adapter_model.safetensors"] == WEIGHTS


async def test_a_half_sent_upload_to_a_bucket_is_no_version_and_is_sent_anew(tmp_path: Path) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    address, data_dir = "http://{}:{}".format(*server.get_host_and_port()), tmp_path / "data"
    adapter = stored(Settings(data_dir=data_dir), tmp_path / "trained", WEIGHTS)
    account = {"access_key_id": "key", "secret_access_key": "secret"}
    bucket = file_system({**account, "endpoint_url": address})
    bucket.mkdir("halves")
    try:
        with stalling(address, HALF) as wire:
            order = Publishing(
                data_dir=str(data_dir),
                platform_urls={},
                adapter=adapter,
                platform="s3",
                values={**account, "endpoint_url": wire.url, "region": "us-east-1"},
            )
            await begun_and_killed(order, S3Registry(kind="s3", url="s3://halves/adapters/"), wire)
            seen = {name.rpartition("/")[2] for name in bucket.find("halves")}
            assert not seen & {"adapter_model.safetensors", "manifest.json"}
            done = await gone_on_with(order, wire)
        assert done.status is PublicationStatus.PUBLISHED
        home = str(done.url).removeprefix("s3://")
        assert bucket.exists(f"{home}/manifest.json")
        assert bucket.cat_file(f"{home}/adapter_model.safetensors") == WEIGHTS
    finally:
        server.stop()
