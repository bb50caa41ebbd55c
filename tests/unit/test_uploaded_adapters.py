"""Uploaded adapters in the store: there once and whole, whoever comes at the same time."""

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.adapters.uploaded import UploadedAdapters
from infra.settings import Settings
from peft_studio.adapter_config import CONFIG
from peft_studio.adapter_files import WEIGHTS
from peft_studio.adapters import Adapter, UploadMetadata
from peft_studio.errors import Conflict, InvalidConfig
from tests.adapter_files import shapes, weights

METADATA = UploadMetadata(base_model="org/model")


def accept(
    store: UploadedAdapters, content: bytes | None = None, key: str | None = None, metadata: UploadMetadata = METADATA
) -> Adapter:
    content = content or weights()
    folder = store.begin()
    try:
        (folder / "file").write_bytes(content)
        return store.accept(metadata, folder / "file", hashlib.sha256(content).hexdigest(), None, key)
    finally:
        store.end(folder)


def test_many_uploads_with_one_key_are_one_whole_adapter(studio_settings: Settings) -> None:
    store = UploadedAdapters(studio_settings)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: accept(store, key="once"), range(40)))
    assert len({adapter.id for adapter in found}) == len({adapter.created_at for adapter in found}) == 1
    (folder,) = studio_settings.adapters.iterdir()
    assert (folder / WEIGHTS).read_bytes() == weights()
    assert json.loads((folder / CONFIG).read_bytes())["r"] == 2


def test_of_different_uploads_with_one_key_one_is_there_and_the_others_are_told(studio_settings: Settings) -> None:
    store = UploadedAdapters(studio_settings)

    def tried(rank: int) -> Adapter | None:
        try:
            return accept(store, weights(shapes(rank)), key="once")
        except Conflict:
            return None

    with ThreadPoolExecutor(8) as pool:
        (taken,) = [adapter for adapter in pool.map(tried, range(1, 20)) if adapter]
    assert [record.adapter for record in store.all()] == [taken]


def test_a_refused_upload_leaves_nothing(studio_settings: Settings) -> None:
    store = UploadedAdapters(studio_settings)
    with pytest.raises(InvalidConfig):
        accept(store, b"no adapter")
    assert list(studio_settings.adapters.iterdir()) == []


def test_uploads_are_found_wherever_the_data_directory_lies(studio_settings: Settings, tmp_path: Path) -> None:
    accepted = accept(UploadedAdapters(studio_settings))
    shutil.move(studio_settings.data_dir, tmp_path / "moved")
    record = UploadedAdapters(Settings(data_dir=tmp_path / "moved")).get(accepted.id)
    assert record is not None and record.adapter.path == str(tmp_path / "moved" / "adapters" / accepted.id / WEIGHTS)


def test_a_folder_whose_record_is_broken_is_not_shown(studio_settings: Settings) -> None:
    store = UploadedAdapters(studio_settings)
    accepted = accept(store)
    (studio_settings.adapters / accepted.id / "adapter.json").write_text("{")
    assert (store.all(), store.get(accepted.id)) == ([], None)


@pytest.mark.parametrize("name", ["adapter_..", "adapter_" + "0" * 31 + "/", "adapter_" + "é" * 32, "..", ""])
def test_ids_lead_nowhere_else(studio_settings: Settings, name: str) -> None:
    assert UploadedAdapters(studio_settings).get(name) is None
