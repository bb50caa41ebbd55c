"""Data sets: uploaded in pieces, so that an upload goes on where it was cut off."""

import base64
from pathlib import Path

import httpx

from peft_studio.answers import Dataset, DatasetList, DatasetPreview, Deleted
from peft_studio.client.bodies import Body, FileRange, Progress
from peft_studio.client.calls import Call, Procedure, model, operation, path
from peft_studio.config import ModelSource
from peft_studio.errors import Unreachable

PIECE_BYTES = 16 << 20
_CHECKING_SECONDS = 600.0  # the last piece is answered when every row has been read
_TUS = {"Tus-Resumable": "1.0.0"}
_SETBACKS = 5


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
        piece_bytes: int = PIECE_BYTES,
    ) -> Procedure[Dataset]:
        """
        Upload a data set file, in pieces; the studio checks its rows before it is there.

        ``progress(sent, total)`` is told how far it is. A lost connection is taken up at the last byte that arrived.
        Where that fails for good, the error's ``details["upload_id"]`` lets a later call go on with the same file.
        """
        file = Path(file)
        size = file.stat().st_size
        upload: str = upload_id or (yield _begin(name or file.name, size))
        dataset_id: str | None = None
        setbacks = 0
        try:
            sent, dataset_id = yield _where(upload)
            while dataset_id is None:
                piece = FileRange(file, sent, min(piece_bytes, size - sent))
                try:
                    sent, dataset_id = yield _send(upload, piece, size, progress)
                    setbacks = 0
                except Unreachable:
                    if (setbacks := setbacks + 1) > _SETBACKS:
                        raise
                    sent, dataset_id = yield _where(upload)
        except Unreachable as lost:
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
    ) -> Call[DatasetPreview]:
        """Return rows as a base model will see them, with the tokens that carry loss marked."""
        query = {"base_model": base_model, "model_source": model_source, "limit": limit, "max_length": max_length}
        where = path("datasets", dataset_id, "preview")
        return Call("GET", where, model(DatasetPreview), query, seconds=_CHECKING_SECONDS)

    @operation
    def delete_dataset(self, dataset_id: str) -> Call[Deleted]:
        """Delete a data set; refused while a job that has not ended uses it."""
        return Call("DELETE", path("datasets", dataset_id), model(Deleted))


def _begin(name: str, size: int) -> Call[str]:
    filename = base64.b64encode(name.encode()).decode()
    headers = _TUS | {"Upload-Length": str(size), "Upload-Metadata": f"filename {filename}"}
    return Call("POST", "/datasets/uploads", _last_part_of_location, headers=headers)


def _send(upload_id: str, piece: FileRange, total: int, progress: Progress | None) -> Call[tuple[int, str | None]]:
    body = Body([piece], "application/offset+octet-stream", progress, sent_before=piece.start, total=total)
    where, headers = path("datasets", "uploads", upload_id), _TUS | {"Upload-Offset": str(piece.start)}
    # Not to be repeated blindly: what has arrived of it is to be found out first.
    return Call("PATCH", where, _arrived, headers=headers, body=body, seconds=_CHECKING_SECONDS, repeatable=False)


def _where(upload_id: str) -> Call[tuple[int, str | None]]:
    return Call("HEAD", path("datasets", "uploads", upload_id), _arrived, headers=_TUS)


def _arrived(response: httpx.Response) -> tuple[int, str | None]:
    return int(response.headers["Upload-Offset"]), response.headers.get("Dataset-Id")


def _last_part_of_location(response: httpx.Response) -> str:
    return httpx.URL(response.headers["Location"]).path.rpartition("/")[2]
