"""OpenAI's files: data sets by another name. OpenAI's own document describes these routes."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

from litestar import Request, delete, get, post
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Response

from api.dataset_files import record_of
from api.downloads import Wanted, send_file
from api.openai.names import dataset_id_of
from api.openai.objects import File, FileDeleted, Page
from api.routes.dataset_uploads import TheDatasets, TheSettings, TheUploads
from api.uploads import receive_form, text_of
from peft_studio.errors import InvalidConfig

PURPOSE = "fine-tune"
_LONGEST_FIELD = 1 << 10
_MOST = 10_000


@post("/v1/files", status_code=200, request_max_body_size=None, include_in_schema=False)
async def create_file(
    request: Request[Any, Any, Any], datasets: TheDatasets, uploads: TheUploads, settings: TheSettings
) -> File:
    """Store a file of rows, once all of them were found to be trainable."""
    upload = await asyncio.to_thread(uploads.begin, request.content_length)
    try:
        parts = await receive_form(
            request, upload.folder, {"file": settings.max_dataset_bytes, "purpose": _LONGEST_FIELD}
        )
        if await asyncio.to_thread(text_of, parts.get("purpose")) != PURPOSE:
            raise InvalidConfig(f"purpose: it must be {PURPOSE!r}.", field="purpose", issue=f"Must be {PURPOSE!r}")
        if (file := parts.get("file")) is None:
            raise InvalidConfig("The form has no part 'file'.", field="file", issue="Required")
        record = record_of(file.filename or "", None, None, file.size, field="file")
        await asyncio.to_thread(upload.describe, record, file.path)
        return File.of(await datasets.take(upload))
    finally:
        await asyncio.to_thread(upload.close)


@get("/v1/files", include_in_schema=False)
async def list_files(
    datasets: TheDatasets,
    after: FromQuery[str | None] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=_MOST)] = _MOST,
    purpose: FromQuery[str] = PURPOSE,
) -> Page[File]:
    """Return files, newest first; all of them are there to train on."""
    if purpose != PURPOSE:
        return Page[File].of([], has_more=False)
    found, following = await datasets.list(limit, dataset_id_of(after, "after") if after else None)
    return Page[File].of([File.of(dataset) for dataset in found], has_more=following is not None)


@get("/v1/files/{file_id:str}", include_in_schema=False)
async def get_file(datasets: TheDatasets, file_id: FromPath[str]) -> File:
    """Return one file."""
    return File.of(await datasets.get(dataset_id_of(file_id)))


@get("/v1/files/{file_id:str}/content", include_in_schema=False)
async def get_file_content(datasets: TheDatasets, file_id: FromPath[str]) -> Response[Any]:
    """Send a file as it came."""
    return await send_file(Path((await datasets.get(dataset_id_of(file_id))).path), Wanted())


@delete("/v1/files/{file_id:str}", status_code=200, include_in_schema=False)
async def delete_file(datasets: TheDatasets, file_id: FromPath[str]) -> FileDeleted:
    """Remove a file that no job uses which has not ended."""
    await datasets.delete(dataset_id_of(file_id))
    return FileDeleted(id=file_id)


ROUTES = [create_file, list_files, get_file, get_file_content, delete_file]
