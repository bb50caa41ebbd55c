"""Adapters: what jobs have made and users have brought; list, look at, upload, download, delete."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from litestar import Request, delete, get, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, HeaderParameter, QueryParameter, SkipValidation
from litestar.response import Response

from api import examples
from api.adapter_wire import AdapterDeleted, AdapterForm, AdapterList, AdapterUploaded
from api.downloads import Wanted, send_files
from api.idempotency import IdempotencyKey
from api.openapi import documented, documented_file
from api.uploads import Uploaded, receive_form
from api.wire import from_wire
from infra.adapters.records import AdapterRecords
from infra.adapters.uploaded import UploadedAdapters
from infra.settings import Settings
from peft_studio.adapter_folder import files_of
from peft_studio.adapters import Adapter, UploadMetadata
from peft_studio.errors import InvalidConfig, JobNotFound

TheAdapters = NamedDependency[SkipValidation[AdapterRecords]]
TheUploads = NamedDependency[SkipValidation[UploadedAdapters]]
TheSettings = NamedDependency[SkipValidation[Settings]]
AnyRequest = Request[Any, Any, Any]
_MOST_JSON = 1 << 20
_PART = ResponseSpec(bytes, False, "The range of the file that was asked for", "application/octet-stream")
_UNCHANGED = ResponseSpec(None, False, "The file is as it was", "application/octet-stream")


@get(
    "/adapters",
    summary="List adapters",
    responses=documented(AdapterList, {"adapters": [examples.ADAPTER], "next_cursor": None}, 404),
)
async def list_adapters(
    adapters: TheAdapters,
    job_id: Annotated[str | None, QueryParameter(description="Only the adapters of this job.")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="At most so many adapters.")] = 20,
    cursor: Annotated[str | None, QueryParameter(description="The next_cursor of the page before.")] = None,
) -> AdapterList:
    """Return adapters, the newest first: in the order in which jobs were submitted and adapters uploaded."""
    page = await adapters.list(job_id, limit, cursor)
    return AdapterList(adapters=page.adapters, next_cursor=page.next_cursor)


@post(
    "/adapters/upload",
    summary="Upload an adapter",
    operation_class=AdapterForm,
    request_max_body_size=None,
    responses=documented(AdapterUploaded, examples.UPLOADED, 403, 404, 409, 413, 415, status=201),
)
async def upload_adapter(
    request: AnyRequest,
    adapters: TheAdapters,
    uploaded_adapters: TheUploads,
    settings: TheSettings,
    idempotency_key: IdempotencyKey,
) -> AdapterUploaded:
    """Check an adapter's weights against what is said of them, and store it as a folder that stock PEFT loads."""
    folder = await asyncio.to_thread(uploaded_adapters.begin, request.content_length)
    try:
        adapter = await _receive(request, folder, adapters, uploaded_adapters, settings, idempotency_key)
    finally:
        await asyncio.to_thread(uploaded_adapters.end, folder)
    url = request.url_for("download_adapter", adapter_id=adapter.id)
    return AdapterUploaded(adapter_id=adapter.id, registry_url=url)


async def _receive(
    request: AnyRequest,
    folder: Path,
    adapters: AdapterRecords,
    uploads: UploadedAdapters,
    settings: Settings,
    key: str | None,
) -> Adapter:
    limits = {"file": settings.max_adapter_bytes, "metadata": _MOST_JSON, "config": _MOST_JSON}
    parts = await receive_form(request, folder, limits)
    file, described = _required(parts, "file"), _required(parts, "metadata")
    metadata = from_wire(UploadMetadata, await asyncio.to_thread(_read_json, described.path))
    assert isinstance(metadata, UploadMetadata)
    if metadata.job_id is not None:
        await _require_job(adapters, metadata.job_id)
    config = await asyncio.to_thread(parts["config"].path.read_bytes) if "config" in parts else None
    return await asyncio.to_thread(uploads.accept, metadata, file.path, file.sha256, config, key)


def _required(parts: Mapping[str, Uploaded], name: str) -> Uploaded:
    if name not in parts:
        raise InvalidConfig(f"The form lacks its part {name!r}.", field=name, issue="Required")
    return parts[name]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise InvalidConfig("metadata: it is not JSON.", field="metadata", issue="Must be a JSON object") from None


async def _require_job(adapters: AdapterRecords, job_id: str) -> None:
    try:
        await adapters.require_job(job_id)
    except JobNotFound as error:
        raise InvalidConfig(error.message, field="job_id", issue="Must be a job of this studio") from None


@get("/adapters/{adapter_id:str}", summary="Get an adapter", responses=documented(Adapter, examples.ADAPTER, 404))
async def get_adapter(adapters: TheAdapters, adapter_id: FromPath[str]) -> Adapter:
    """Return one adapter: which job made it of which base model, and where it lies."""
    return await adapters.get(adapter_id)


@get(
    "/adapters/{adapter_id:str}/download",
    name="download_adapter",
    summary="Download an adapter",
    responses=documented_file("application/zip", 404, 416) | {206: _PART, 304: _UNCHANGED},
)
async def download_adapter(
    adapters: TheAdapters,
    adapter_id: FromPath[str],
    file: Annotated[str | None, QueryParameter(description="Only this file, as it is.")] = None,
    range_: Annotated[str | None, HeaderParameter(name="Range", description="With `file`: a part of it.")] = None,
    if_range: Annotated[str | None, HeaderParameter(name="If-Range")] = None,
    if_none_match: Annotated[str | None, HeaderParameter(name="If-None-Match")] = None,
) -> Response[Any]:
    """
    Send the adapter's folder, which stock PEFT loads, as a zip archive, or one of its files.

    A file has the SHA-256 of its content as its entity tag, and is sent in ranges: a download that broke off goes on.
    """
    folder = Path((await adapters.get(adapter_id)).path).parent
    files = await asyncio.to_thread(files_of, folder)
    return await send_files(files, file, adapter_id, Wanted(range_, if_range, if_none_match))


@delete(
    "/adapters/{adapter_id:str}",
    status_code=200,
    summary="Delete an adapter",
    responses=documented(AdapterDeleted, examples.ADAPTER_DELETED, 403, 404, 409),
)
async def delete_adapter(adapters: TheAdapters, adapter_id: FromPath[str]) -> AdapterDeleted:
    """Delete an adapter that no deployment serves; the job that made it keeps its record."""
    await adapters.delete(adapter_id)
    return AdapterDeleted(adapter_id=adapter_id)


ROUTES = [list_adapters, upload_adapter, get_adapter, download_adapter, delete_adapter]
