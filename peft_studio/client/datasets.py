"""Data sets: uploaded so that an upload goes on where it was cut off (the tus protocol)."""

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import httpx

from peft_studio.answers import DatasetList, Deleted
from peft_studio.client.bodies import Body, FileRange, Progress
from peft_studio.client.calls import Call, Pause, Procedure, model, operation, part, path
from peft_studio.config import LongRows, ModelSource
from peft_studio.errors import Conflict, Unreachable
from peft_studio.previews import DatasetPreview
from peft_studio.stored_datasets import Dataset

_CHECKING_SECONDS = 600.0  # the last byte is answered when every row has been read
_TUS = {"Tus-Resumable": "1.0.0"}
_SETBACKS = 6
_PAUSE_SECONDS = 0.3


class DatasetOperations:
    """Upload, look at and delete data sets."""

    @operation
    def upload_dataset(
        self,
        file: str | Path,
        *,
        name: str | None = None,
        progress: Progress | None = None,
        upload_id: str | None = None,
    ) -> Procedure[Dataset]:
        """
        Upload a data set file; the studio checks its hash and all of its rows before it is there.

        ``progress(sent, total)`` is told how far it is. A lost connection is taken up at the last byte that arrived.
        Where that fails for good, the error's ``details["upload_id"]`` lets a later call go on with the same file.
        """
        file = Path(file)
        size = file.stat().st_size
        upload: str = upload_id or (yield _begin(file, name, size))
        setbacks = 0
        try:
            sent, dataset_id = yield _look(upload)
            while dataset_id is None:
                try:
                    sent, dataset_id = yield _send(upload, FileRange(file, sent, size - sent), size, progress)
                except (Unreachable, Conflict):  # a conflict, where the studio has not yet noticed that we were cut off
                    if (setbacks := setbacks + 1) > _SETBACKS:
                        raise
                    yield Pause(_PAUSE_SECONDS * setbacks)
                    sent, dataset_id = yield _look(upload)
        except (Unreachable, Conflict) as lost:
            lost.details["upload_id"] = upload
            raise
        return (yield Call("GET", path("datasets", dataset_id), model(Dataset)))

    @operation
    def get_dataset(self, dataset_id: str) -> Call[Dataset]:
        """Return a data set."""
        return Call("GET", path("datasets", dataset_id), model(Dataset))

    @operation
    def list_datasets(self, *, limit: int | None = None, cursor: str | None = None) -> Call[DatasetList]:
        """Return data sets, newest first; ``cursor`` is a page's ``next_cursor``, and gives the page behind it."""
        return Call("GET", "/datasets", model(DatasetList), {"limit": limit, "cursor": cursor})

    @operation
    def preview_dataset(
        self,
        dataset_id: str,
        base_model: str,
        *,
        model_source: ModelSource | str | None = None,
        limit: int | None = None,
        max_length: int | None = None,
        columns: Mapping[str, str] | None = None,
        long_rows: LongRows | str | None = None,
    ) -> Call[DatasetPreview]:
        """Return rows as a base model will see them, with the tokens that carry loss marked."""
        query = {"base_model": base_model, "model_source": model_source, "limit": limit, "max_length": max_length}
        query |= {"columns": json.dumps(dict(columns)) if columns else None, "long_rows": long_rows}
        where = path("datasets", dataset_id, "preview")
        return Call("GET", where, model(DatasetPreview), query, seconds=_CHECKING_SECONDS)

    @operation
    def delete_dataset(self, dataset_id: str) -> Call[Deleted]:
        """Delete a data set; refused while a job that has not ended uses it."""
        return Call("DELETE", path("datasets", dataset_id), model(Deleted))


def _begin(file: Path, name: str | None, size: int) -> Call[str]:
    with file.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    said = {"filename": file.name, "sha256": sha256} | ({"name": name} if name else {})
    metadata = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in said.items())
    headers = _TUS | {"Upload-Length": str(size), "Upload-Metadata": metadata}
    return Call("POST", "/datasets/uploads", part("upload_id", str), headers=headers)


def _send(upload_id: str, rest: FileRange, total: int, progress: Progress | None) -> Call[tuple[int, str | None]]:
    body = Body([rest], "application/offset+octet-stream", progress, sent_before=rest.start, total=total)
    where, headers = path("datasets", "uploads", upload_id), _TUS | {"Upload-Offset": str(rest.start)}
    # Not to be repeated blindly: what has arrived of it is to be found out first.
    return Call("PATCH", where, _arrived, headers=headers, body=body, seconds=_CHECKING_SECONDS, repeatable=False)


def _look(upload_id: str) -> Call[tuple[int, str | None]]:
    where = path("datasets", "uploads", upload_id)
    return Call("HEAD", where, _arrived, headers=_TUS, seconds=_CHECKING_SECONDS)


def _arrived(response: httpx.Response) -> tuple[int, str | None]:
    return int(response.headers["Upload-Offset"]), response.headers.get("Dataset-Id")
