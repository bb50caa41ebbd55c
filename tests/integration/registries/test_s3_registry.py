"""Publishing in a bucket, against a real S3 server on loopback."""

import json
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from infra.credentials import Credentials, CredentialsInMemory
from infra.platforms.checks import Asked
from infra.platforms.s3_check import S3Check
from infra.registries.publications import ask_for, carry_out
from infra.registries.s3 import file_system
from infra.registries.sending import Sender
from infra.settings import Settings
from peft_studio.errors import CredentialRefused, ResourceUnavailable
from peft_studio.registries import Publication, PublicationStatus, S3Registry
from tests.integration.registries.published import here, stored

pytestmark = pytest.mark.anyio
PLACE = S3Registry(kind="s3", url="s3://models/adapters/")
PLAIN = {"Content-Type": "text/plain"}
SECRET = "the-secret-of-this-test"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def values(address: str) -> dict[str, str]:
    return {"access_key_id": "key", "secret_access_key": SECRET, "endpoint_url": address, "region": "us-east-1"}


@pytest.fixture
def bucket(address: str, values: dict[str, str]) -> Any:
    urllib.request.urlopen(urllib.request.Request(f"{address}/moto-api/reset", method="POST"))
    files = file_system({name: value for name, value in values.items() if name != "region"})
    files.mkdir("models")
    return files


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


async def publish(adapter: Any, settings: Settings, values: dict[str, str], url: str = PLACE.url) -> Publication:
    kept = CredentialsInMemory()
    secrets = {name: SecretStr(value) for name, value in values.items()}
    await kept.put(Credentials(platform="s3", verified_at=datetime.now(UTC), values=secrets))
    place = S3Registry(kind="s3", url=url)
    ask_for(adapter, [place], settings)
    found = await carry_out(adapter, Sender(kept, settings, (0.01,), here), settings)
    return next(one for one in found if one.registry == place)


async def test_a_version_is_a_folder_named_by_its_content_and_its_manifest_says_what_is_in_it(
    bucket: Any, settings: Settings, values: dict[str, str], tmp_path: Path
) -> None:
    adapter = stored(settings, tmp_path / "trained")
    done = await publish(adapter, settings, values)
    home = f"models/adapters/{done.version}"
    assert (done.status, done.url, done.revision) == (PublicationStatus.PUBLISHED, f"s3://{home}", done.version)
    manifest = json.loads(bucket.cat_file(f"{home}/manifest.json"))
    there = {name.removeprefix(f"{home}/") for name in bucket.find(home)}
    assert there == {*manifest["files"], "manifest.json"}
    assert bucket.cat_file(f"{home}/adapter_model.safetensors") == b"weights"
    assert (await publish(adapter, settings, values)).version == done.version
    other = await publish(stored(settings, tmp_path / "other", b"better", "job_" + "0b" * 16), settings, values)
    assert len(bucket.ls("models/adapters")) == 2
    assert other.version != done.version


async def test_a_push_that_broke_off_is_gone_on_with_and_was_no_version_before(
    bucket: Any, settings: Settings, values: dict[str, str], tmp_path: Path
) -> None:
    adapter = stored(settings, tmp_path / "trained")
    version = (await publish(adapter, settings, values)).version
    home = f"models/adapters/{version}"
    bucket.rm([f"{home}/manifest.json", f"{home}/adapter_config.json"])
    before = bucket.info(f"{home}/adapter_model.safetensors")["LastModified"]
    assert (await publish(adapter, settings, values)).version == version
    assert bucket.exists(f"{home}/manifest.json") and bucket.exists(f"{home}/adapter_config.json")
    assert bucket.info(f"{home}/adapter_model.safetensors")["LastModified"] == before


async def test_a_file_that_is_not_what_it_was_is_not_published(
    bucket: Any, settings: Settings, values: dict[str, str], tmp_path: Path
) -> None:
    adapter = stored(settings, tmp_path / "trained")
    Path(adapter.path).write_bytes(b"altered")
    failed = await publish(adapter, settings, values)
    assert "has changed" in str(failed.error)
    assert [name for name in bucket.find("models") if name.endswith(("manifest.json", ".safetensors"))] == []


async def test_a_bucket_that_is_missing_or_away_is_told_and_no_secret_with_it(
    bucket: Any, settings: Settings, values: dict[str, str], tmp_path: Path
) -> None:
    adapter = stored(settings, tmp_path / "trained")
    missing = await publish(adapter, settings, values, "s3://nowhere/adapters")
    assert (missing.status, "create it" in str(missing.error)) == (PublicationStatus.FAILED, True)
    down = await publish(adapter, settings, values | {"endpoint_url": "http://127.0.0.1:9"})
    assert (down.status, "cannot be used now" in str(down.error)) == (PublicationStatus.FAILED, True)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in written if SECRET.encode() in path.read_bytes()] == []


async def test_credentials_are_tried_by_a_signed_request(address: str, values: dict[str, str], bucket: Any) -> None:
    platform = Asked("s3", "S3", address, "secret_access_key")
    await S3Check().run(platform, values)
    with pytest.raises(ResourceUnavailable):
        await S3Check().run(platform, values | {"endpoint_url": "http://127.0.0.1:9"})
    strict = urllib.request.Request(f"{address}/moto-api/reset-auth", data=b"0", headers=PLAIN, method="POST")
    urllib.request.urlopen(strict)
    try:
        with pytest.raises(CredentialRefused):
            await S3Check().run(platform, values)
    finally:
        urllib.request.urlopen(urllib.request.Request(strict.full_url, data=b"1000000", headers=PLAIN, method="POST"))
