"""Data sets: upload, list, look at, see as a base model will, delete. Resumable uploads are in ``dataset_uploads``."""

import asyncio
import json
from typing import Annotated, Any

from litestar import Request, delete, get, post
from litestar.di import NamedDependency
from litestar.enums import RequestEncodingType
from litestar.params import FromPath, QueryParameter, SkipValidation

from api import examples
from api.dataset_files import FileOperation, record_of
from api.openapi import documented
from api.routes.dataset_uploads import RESUMABLE_UPLOADS, TheDatasets, TheSettings, TheUploads
from api.uploads import receive_body, receive_form, text_of
from api.wire import DatasetDeleted, DatasetList
from infra.datasets.previews import Previews
from infra.uploads import Upload
from peft_studio.config import Column, LongRows, ModelSource, TrainingConfig
from peft_studio.errors import InvalidConfig
from peft_studio.previews import DatasetPreview
from peft_studio.stored_datasets import Dataset

ThePreviews = NamedDependency[SkipValidation[Previews]]
_LONGEST_FIELD = 1 << 16


@post(
    "/datasets",
    summary="Upload a data set",
    operation_class=FileOperation,
    request_max_body_size=None,  # max_dataset_bytes is what counts here
    responses=documented(Dataset, examples.DATASET, 403, 413, 415, status=201),
)
async def upload_dataset(
    request: Request[Any, Any, Any],
    datasets: TheDatasets,
    uploads: TheUploads,
    settings: TheSettings,
    name: Annotated[str | None, QueryParameter(description="The file's name, where it is sent as it is.")] = None,
    sha256: Annotated[str | None, QueryParameter(description="Of the file: anything else is refused.")] = None,
) -> Dataset:
    """
    Store a file of rows, once all of them were found to be trainable.

    Send a form with the part `file`, or the file as it is and its name as `?name=`. For large files and lines that
    break, use a resumable upload.
    """
    upload = await asyncio.to_thread(uploads.begin, request.content_length)
    try:
        if request.content_type[0] == RequestEncodingType.MULTI_PART:
            await _receive_form(request, upload, settings.max_dataset_bytes)
        else:
            record_of(name or "", name, sha256, 0)  # what is wrong with the name is told ahead of the bytes
            file = await receive_body(request, upload.folder / "file", settings.max_dataset_bytes, "file")
            await asyncio.to_thread(upload.describe, record_of(name or "", name, sha256, file.size), file.path)
        return await datasets.take(upload)
    finally:
        await asyncio.to_thread(upload.close)


async def _receive_form(request: Request[Any, Any, Any], upload: Upload, limit: int) -> None:
    limits = {"file": limit, "name": _LONGEST_FIELD, "sha256": _LONGEST_FIELD}
    parts = await receive_form(request, upload.folder, limits)
    if (file := parts.get("file")) is None:
        raise InvalidConfig("The form has no part 'file'.", field="file", issue="Required")
    name, sha256 = [await asyncio.to_thread(text_of, parts.get(field)) for field in ("name", "sha256")]
    record = record_of(file.filename or "", name, sha256, file.size)
    await asyncio.to_thread(upload.describe, record, file.path)


@get(
    "/datasets",
    summary="List data sets",
    responses=documented(DatasetList, {"datasets": [examples.DATASET], "next_cursor": None}),
)
async def list_datasets(
    datasets: TheDatasets,
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="At most so many data sets.")] = 20,
    cursor: Annotated[str | None, QueryParameter(description="`next_cursor` of the page before.")] = None,
) -> DatasetList:
    """Return data sets, newest first."""
    page, next_cursor = await datasets.list(limit, cursor)
    return DatasetList(datasets=page, next_cursor=next_cursor)


@get("/datasets/{dataset_id:str}", summary="Get a data set", responses=documented(Dataset, examples.DATASET, 404))
async def get_dataset(datasets: TheDatasets, dataset_id: FromPath[str]) -> Dataset:
    """Return one data set: how many rows it has, laid out how, and the hash of its file."""
    return await datasets.get(dataset_id)


@get(
    "/datasets/{dataset_id:str}/preview",
    summary="See a data set as a model will",
    responses=documented(DatasetPreview, examples.PREVIEW, 404),
)
async def preview_dataset(
    datasets: TheDatasets,
    previews: ThePreviews,
    dataset_id: FromPath[str],
    base_model: Annotated[str, QueryParameter(min_length=1, max_length=200, description="As in a job.")],
    model_source: Annotated[ModelSource, QueryParameter(description="As in a job.")] = ModelSource.HUGGINGFACE,
    limit: Annotated[int, QueryParameter(ge=1, le=20, description="So many rows are shown.")] = 5,
    max_length: Annotated[int, QueryParameter(ge=8, le=32_768, description="As in a job.")] = 1024,
    columns: Annotated[
        str | None, QueryParameter(max_length=4096, description='As in a job, as JSON: {"prompt": "question"}.')
    ] = None,
    long_rows: Annotated[LongRows, QueryParameter(description="As in a job.")] = LongRows.TRUNCATE,
) -> DatasetPreview:
    """
    Render and tokenize the first rows with the trainer's own code, and mark the tokens that carry loss.

    Told of the first 5,000 rows (or two million characters): the share of tokens that carry loss, how many rows are
    cut, which say the same as an earlier one, and of which nothing would be learnt.
    """
    named = _columns(columns)
    dataset = await datasets.get(dataset_id)
    return await previews.preview(
        dataset, base_model, model_source, limit, max_length, columns=named, long_rows=long_rows
    )


def _columns(written: str | None) -> dict[Column, str]:
    """Read which columns are to be taken; raises ``InvalidConfig``."""
    try:
        given = TrainingConfig.model_validate(
            {"base_model": "-", "dataset_path": "-", "columns": json.loads(written or "{}")}
        )
    except (ValueError, RecursionError):
        raise InvalidConfig(
            "columns: it must be a JSON object of columns, as in a job.",
            field="columns",
            issue='Must be like {"prompt": "question"}',
        ) from None
    return given.columns


@delete(
    "/datasets/{dataset_id:str}",
    status_code=200,
    summary="Delete a data set",
    responses=documented(
        DatasetDeleted, {"success": True, "dataset_id": examples.DATASET["dataset_id"]}, 403, 404, 409
    ),
)
async def delete_dataset(datasets: TheDatasets, dataset_id: FromPath[str]) -> DatasetDeleted:
    """Remove a data set that no job uses which has not ended."""
    await datasets.delete(dataset_id)
    return DatasetDeleted(dataset_id=dataset_id)


ROUTES = [upload_dataset, list_datasets, get_dataset, preview_dataset, delete_dataset, RESUMABLE_UPLOADS]
