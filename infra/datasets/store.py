"""
The data sets of a studio, each a folder of its own, whole or not there at all.

    dataset_<hex>/dataset.json   the Dataset
    dataset_<hex>/rows.<type>    the file, as it was uploaded
"""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from infra.disk_space import full_disk_told
from infra.settings import Settings
from infra.uploads import RECORD as UPLOAD
from infra.uploads import Upload
from peft_studio import datasets
from peft_studio.errors import InvalidConfig, NotFound
from peft_studio.plan import DatasetFacts
from peft_studio.run_dir import make_durable, replace_file
from peft_studio.stored_datasets import Dataset, is_dataset_id

RECORD = "dataset.json"


class DatasetStore:
    """The data sets; ids sort by the time when their uploads began."""

    def __init__(self, settings: Settings):
        self._home = settings.datasets
        self._trash = settings.uploads

    def take(self, upload: Upload) -> Dataset:
        """
        Make a data set of an upload that is whole; it stays to be closed.

        What is no data set raises ``InvalidConfig`` and is discarded. May be tried again after a crash.
        """
        upload.sync()
        try:
            facts = _inspect(upload.path)
            _require_hash(facts, upload.record.sha256)
        except InvalidConfig:
            upload.discard()
            raise
        folder = self._home / upload.dataset_id
        dataset = Dataset(
            dataset_id=upload.dataset_id,
            name=upload.record.name,
            format=facts.format,
            file_type=upload.record.file_type,
            rows=facts.rows,
            size_bytes=facts.bytes,
            sha256=facts.sha256,
            characters=facts.characters,
            created_at=upload.record.created_at,
            path=str(folder / upload.path.name),
        )
        with full_disk_told():
            replace_file(upload.folder / RECORD, dataset.model_dump_json(indent=2).encode())
            for other in set(upload.folder.iterdir()) - {upload.path, upload.folder / RECORD, upload.folder / UPLOAD}:
                other.unlink()
            upload.move(folder)
            (folder / UPLOAD).unlink(missing_ok=True)  # until now, a crash left an upload to be taken again
            make_durable(self._home)
        return dataset

    def get(self, dataset_id: str) -> Dataset:
        """Return one data set; raises ``NotFound``."""
        dataset = _read(self._home / dataset_id) if is_dataset_id(dataset_id) else None
        if dataset is None:
            shown = dataset_id[:100]
            raise NotFound(f"There is no data set {shown!r}.", dataset_id=shown)
        return dataset

    def list(self, limit: int, cursor: str | None = None) -> tuple[Sequence[Dataset], str | None]:
        """Return data sets, newest first, those behind the cursor; and the next page's cursor, if there is one."""
        if cursor is not None and not is_dataset_id(cursor):
            raise InvalidConfig(
                "This is not a cursor of the list of data sets.", field="cursor", issue="Send one you received"
            )
        names = os.listdir(self._home) if self._home.is_dir() else []
        behind = [name for name in names if is_dataset_id(name) and (cursor is None or name < cursor)]
        ids = sorted(behind, reverse=True)
        found = [dataset for name in ids[:limit] if (dataset := _read(self._home / name))]
        return found, ids[limit - 1] if len(ids) > limit else None

    def delete(self, dataset_id: str) -> None:
        """Remove a data set, in one step as seen from outside; raises ``NotFound``."""
        self.get(dataset_id)
        self._trash.mkdir(parents=True, exist_ok=True)
        trash = self._trash / f".{dataset_id}"  # swept like an upload, should this be the process's last act
        with suppress(FileNotFoundError):
            os.rename(self._home / dataset_id, trash)
        shutil.rmtree(trash, ignore_errors=True)


def _inspect(path: Path) -> DatasetFacts:
    """Read a file through; whatever is wrong with it is said of ``file``, without its name on disk."""
    try:
        return datasets.inspect(str(path))
    except InvalidConfig as error:
        issue = error.details["issue"].replace(repr(path.name), "it")
        details = {**error.details, "field": "file", "issue": issue}
        raise InvalidConfig(f"file: {issue}", **details) from None


def _require_hash(facts: DatasetFacts, expected: str | None) -> None:
    if expected is not None and expected.lower() != facts.sha256:
        raise InvalidConfig(
            f"sha256: what arrived has the SHA-256 {facts.sha256}; send the file again.",
            field="sha256",
            issue=f"what arrived has the SHA-256 {facts.sha256}",
        )


def _read(folder: Path) -> Dataset | None:
    try:
        dataset = Dataset.model_validate_json((folder / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None
    # The data directory may have been moved since.
    return dataset.model_copy(update={"path": str(folder / f"rows.{dataset.file_type}")})
