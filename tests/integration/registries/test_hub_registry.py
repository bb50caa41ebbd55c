"""Publishing on the Hub: the real huggingface_hub, in the process that a push has, against a simulated hub."""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr

from infra.credentials import Credentials, CredentialsInMemory
from infra.registries.publications import ask_for, carry_out, publications_of
from infra.registries.sending import Run, Sender, in_own_process
from infra.settings import Settings
from infra.simulators.accounts import GOOD
from infra.simulators.exchange import Reply
from infra.simulators.hub_uploads import READ_ONLY, Repository, UploadHub, UploadTrouble, create_upload_hub
from infra.simulators.loopback import served
from peft_studio.adapters import Adapter
from peft_studio.registries import HuggingFaceRegistry, Publication, PublicationStatus
from tests.integration.registries.published import here, stored

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # huggingface_hub 2.4, in its LFS uploads
]
PLACE = HuggingFaceRegistry(kind="huggingface", repository="me/my-adapter")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> UploadHub:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # a push's own process has it so
    return UploadHub()


@pytest.fixture
def settings(hub: UploadHub, tmp_path: Path) -> Iterator[Settings]:
    with served(create_upload_hub(hub)) as address:
        yield Settings(data_dir=tmp_path / "data", platform_urls={"huggingface": address})


@pytest.fixture
def adapter(settings: Settings, tmp_path: Path) -> Adapter:
    return stored(settings, tmp_path / "trained")


async def connected(token: str = GOOD) -> CredentialsInMemory:
    kept = CredentialsInMemory()
    values = {"api_key": SecretStr(token)}
    await kept.put(Credentials(platform="huggingface", verified_at=datetime.now(UTC), values=values))
    return kept


async def publish(
    adapter: Adapter, settings: Settings, token: str = GOOD, place: HuggingFaceRegistry = PLACE, run: Run = here
) -> Publication:
    ask_for(adapter, [place], settings)
    (one,) = await carry_out(adapter, Sender(await connected(token), settings, (0.01,), run), settings)
    return one


def files(hub: UploadHub, name: str = "me/my-adapter") -> dict[str, bytes]:
    return dict(hub.repositories[name].head.files)


async def test_a_repository_is_made_and_one_commit_brings_all_files_and_the_card(
    hub: UploadHub, settings: Settings, adapter: Adapter
) -> None:
    done = await publish(adapter, settings)
    repository = hub.repositories["me/my-adapter"]
    assert repository.private
    assert len(repository.commits) == 2
    assert (done.status, done.revision) == (PublicationStatus.PUBLISHED, repository.head.oid)
    assert done.url == f"{settings.platform_urls['huggingface']}/me/my-adapter/tree/{done.revision}"
    there = files(hub)
    assert there.keys() == {
        *("adapter_model.safetensors", "adapter_config.json", "lineage.json", "README.md", "manifest.json"),
    }
    assert there["adapter_model.safetensors"] == b"weights"
    manifest = json.loads(there["manifest.json"])
    assert manifest["version"] == done.version
    assert {
        name: hashlib.sha256(content).hexdigest() for name, content in there.items() if name in manifest["files"]
    } == {name: record["sha256"] for name, record in manifest["files"].items()}
    front, text = there["README.md"].decode().split("---\n")[1:]
    card = yaml.safe_load(front)
    assert card["base_model"] == "org/model"
    assert (card["library_name"], card["license"]) == ("peft", "apache-2.0")
    assert {"lora", "base_model:adapter:org/model"} <= set(card["tags"])
    assert "c" * 40 in text and "e" * 64 in text and "0.5000" in text


async def test_publishing_again_changes_nothing_and_another_adapter_is_a_version_on_top(
    hub: UploadHub, settings: Settings, adapter: Adapter, tmp_path: Path
) -> None:
    first = await publish(adapter, settings)
    again = await publish(adapter, settings)
    assert (first.version, first.revision) == (again.version, again.revision)
    assert len(hub.repositories["me/my-adapter"].commits) == 2
    extra = tmp_path / "second"
    extra.mkdir()
    (extra / "chat_template.jinja").write_text("{{ messages }}")
    second = await publish(stored(settings, extra, b"better", "job_" + "0b" * 16), settings)
    assert second.version != first.version
    assert files(hub)["adapter_model.safetensors"] == b"better"
    third = await publish(stored(settings, tmp_path / "third", b"best", "job_" + "0c" * 16), settings)
    assert "chat_template.jinja" not in files(hub)  # of the version before, and no part of this one
    assert len(hub.repositories["me/my-adapter"].commits) == 4
    assert third.revision == hub.repositories["me/my-adapter"].head.oid


async def test_what_was_sent_before_a_push_broke_off_is_not_sent_again_and_nothing_broken_is_seen(
    hub: UploadHub, settings: Settings, adapter: Adapter
) -> None:
    hub.troubles = [UploadTrouble("/commit/", Reply({"error": "Bad gateway"}, 503))]
    done = await publish(adapter, settings)
    assert done.status is PublicationStatus.PUBLISHED
    assert len(hub.received) == 1
    assert len(hub.repositories["me/my-adapter"].commits) == 2
    assert sum("/commit/" in asked for asked in hub.asked) == 2


async def test_a_hub_that_is_busy_is_waited_for(hub: UploadHub, settings: Settings, adapter: Adapter) -> None:
    hub.troubles = [UploadTrouble("preupload", Reply({"error": "slow down"}, 429, {"Retry-After": "1"}))]
    assert (await publish(adapter, settings)).status is PublicationStatus.PUBLISHED


async def test_one_who_committed_meanwhile_is_not_overwritten_unseen(
    hub: UploadHub, settings: Settings, adapter: Adapter
) -> None:
    hub.troubles = [UploadTrouble("/commit/", Reply({"error": "A commit has happened since."}, 412))]
    assert (await publish(adapter, settings)).status is PublicationStatus.PUBLISHED
    assert sum(asked == "GET /api/models/me/my-adapter" for asked in hub.asked) >= 2


GATED = Reply({"error": "Access is restricted"}, 403, {"X-Error-Code": "GatedRepo"})


@pytest.mark.parametrize(
    ("token", "trouble", "place", "said"),
    [
        ("hf_wrong", None, "me/my-adapter", "refused the token"),
        (READ_ONLY, None, "me/my-adapter", "role write"),
        (GOOD, None, "somebody/my-adapter", "role write"),
        (GOOD, UploadTrouble("preupload", GATED), "me/my-adapter", "conditions"),
        (GOOD, UploadTrouble("validate-yaml", Reply({"errors": [{"message": "no"}]}, 400)), "me/my-adapter", "take"),
    ],
)
async def test_a_refusal_is_told_and_not_tried_again(
    hub: UploadHub,
    settings: Settings,
    adapter: Adapter,
    token: str,
    trouble: UploadTrouble | None,
    place: str,
    said: str,
) -> None:
    hub.troubles = [trouble] if trouble else []
    failed = await publish(adapter, settings, token, HuggingFaceRegistry(kind="huggingface", repository=place))
    assert failed.status is PublicationStatus.FAILED
    assert said in str(failed.error)
    assert sum(asked.endswith("repos/create") for asked in hub.asked) == 1
    assert token not in json.dumps([one.model_dump(mode="json") for one in publications_of(Path(adapter.path).parent)])


async def test_what_was_to_be_private_is_not_put_into_a_public_repository(
    hub: UploadHub, settings: Settings, adapter: Adapter
) -> None:
    hub.repositories["me/my-adapter"] = Repository(private=False)
    assert "public" in str((await publish(adapter, settings)).error)
    assert files(hub) == {}
    open_to_all = PLACE.model_copy(update={"private": False})
    assert (await publish(adapter, settings, place=open_to_all)).status is PublicationStatus.PUBLISHED


async def test_a_hub_that_is_down_is_told_after_the_last_try_and_the_adapter_stays(
    settings: Settings, adapter: Adapter
) -> None:
    down = settings.model_copy(update={"platform_urls": {"huggingface": "http://127.0.0.1:9"}})
    failed = await publish(adapter, down)
    assert failed.status is PublicationStatus.FAILED
    assert "cannot be reached" in str(failed.error)
    assert Path(adapter.path).read_bytes() == b"weights"
    assert (await publish(adapter, settings)).status is PublicationStatus.PUBLISHED


async def test_no_token_is_left_anywhere(
    hub: UploadHub, settings: Settings, adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    monkeypatch.setattr("tempfile.tempdir", None)
    hub.troubles = [UploadTrouble("/commit/", Reply({"error": f"you are {GOOD}"}, 503))]
    await publish(adapter, settings, run=in_own_process)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert [path for path in written if GOOD.encode() in path.read_bytes()] == []
    assert list(scratch.iterdir()) == []
