"""The store of data sets: whole or not there, whatever dies in between."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.datasets.store import DatasetStore
from infra.settings import Settings
from infra.uploads import Upload, UploadRecord, Uploads
from peft_studio.errors import Conflict, InvalidConfig, NotFound
from peft_studio.stored_datasets import FileType, label

ROWS = b'{"text": "Hello"}\n' * 10
KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from infra.settings import Settings
from infra.uploads import Uploads

upload = Uploads(Settings(data_dir=Path(sys.argv[1]))).open(sys.argv[2])
upload.append(b'{"text": "Hello"}' + b"\\n")
os.kill(os.getpid(), signal.SIGKILL)
"""


def begun(settings: Settings, length: int = len(ROWS)) -> Upload:
    upload = Uploads(settings).begin(length)
    upload.describe(UploadRecord(name="rows.jsonl", file_type=FileType.JSONL, length=length))
    return upload


def test_an_upload_whose_writer_was_killed_goes_on_behind_its_last_byte(studio_settings: Settings) -> None:
    upload = begun(studio_settings)
    upload.close()
    command = [sys.executable, "-c", KILLED_WHILE_WRITING, str(studio_settings.data_dir), upload.id]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    again = Uploads(studio_settings).open(upload.id)  # the lock went with the process
    assert again.offset == len(ROWS) // 10
    again.append(ROWS[again.offset :])
    assert DatasetStore(studio_settings).take(again).sha256 == hashlib.sha256(ROWS).hexdigest()
    again.close()


def test_two_cannot_write_to_one_upload(studio_settings: Settings) -> None:
    upload = begun(studio_settings)
    with pytest.raises(Conflict):
        Uploads(studio_settings).open(upload.id)
    upload.close()
    Uploads(studio_settings).open(upload.id).close()


def test_what_became_a_data_set_is_no_upload_any_more(studio_settings: Settings) -> None:
    upload = begun(studio_settings)
    upload.append(ROWS)
    dataset = DatasetStore(studio_settings).take(upload)
    for seek in (Uploads(studio_settings).open, Uploads(studio_settings).look_at):
        with pytest.raises(NotFound):
            seek(upload.id)
    upload.close()
    assert DatasetStore(studio_settings).get(dataset.dataset_id) == dataset


def test_a_crash_before_the_last_step_leaves_an_upload_that_can_be_taken_again(studio_settings: Settings) -> None:
    upload = begun(studio_settings)
    upload.append(ROWS)
    dataset = DatasetStore(studio_settings).take(upload)
    upload.close()
    # As it was before the rename: everything written, nothing moved.
    folder = studio_settings.uploads / upload.id
    os.rename(studio_settings.datasets / dataset.dataset_id, folder)
    (folder / "upload.json").write_text(upload.record.model_dump_json())
    assert DatasetStore(studio_settings).list(20) == ([], None)
    again = Uploads(studio_settings).open(upload.id)
    assert again.is_whole
    assert DatasetStore(studio_settings).take(again) == dataset
    again.close()


def test_what_is_no_data_set_is_gone_when_it_is_closed(studio_settings: Settings) -> None:
    upload = begun(studio_settings, 3)
    upload.append(b"{}\n")
    with pytest.raises(InvalidConfig, match="none of the columns"):
        DatasetStore(studio_settings).take(upload)
    upload.close()
    assert list(studio_settings.uploads.iterdir()) == []


def test_a_data_set_moves_with_the_data_directory(studio_settings: Settings, tmp_path: Path) -> None:
    upload = begun(studio_settings)
    upload.append(ROWS)
    dataset = DatasetStore(studio_settings).take(upload)
    upload.close()
    shutil.move(studio_settings.data_dir, tmp_path / "elsewhere")
    moved = DatasetStore(Settings(data_dir=tmp_path / "elsewhere")).get(dataset.dataset_id)
    assert Path(moved.path).read_bytes() == ROWS


def test_a_folder_without_a_record_is_no_data_set(studio_settings: Settings) -> None:
    folder = studio_settings.datasets / ("dataset_" + "0" * 32)
    folder.mkdir(parents=True)
    assert DatasetStore(studio_settings).list(20) == ([], None)
    (folder / "dataset.json").write_text("{")
    with pytest.raises(NotFound):
        DatasetStore(studio_settings).get(folder.name)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.json", FileType.JSON),
        ("a.b.JSONL", FileType.JSONL),
        ("a.ndjson", FileType.JSONL),
        ("a.csv", FileType.CSV),
        ("a.parquet", FileType.PARQUET),
        ("json", None),
        (".json", None),
        ("a.", None),
        ("", None),
    ],
)
def test_the_ending_of_a_name_tells_the_type(name: str, kind: FileType | None) -> None:
    assert FileType.of(name) is kind


def test_a_label_is_never_longer_than_may_be_shown() -> None:
    assert len(label("x" * 10_000 + "." + "y" * 10_000)) <= 200
    assert label("/") == label("\0") == ""
