"""Exports: adapters made into what others load; asked for, looked at, downloaded, stopped and deleted."""

from typing import Annotated, Any

from litestar import delete, get, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from litestar.params import Body, FromPath, HeaderParameter, QueryParameter, SkipValidation
from litestar.response import Response

from api import export_examples as examples
from api.downloads import Wanted, send_files
from api.export_wire import ExportDeleted, ExportList, ExportShown
from api.idempotency import IdempotencyKey
from api.openapi import documented, documented_file
from infra.exports.exports import AdapterExports
from peft_studio.exports import ExportConfig
from peft_studio.jobs import JobStatus

TheExports = NamedDependency[SkipValidation[AdapterExports]]
_PART = ResponseSpec(bytes, False, "The range of the file that was asked for", "application/octet-stream")
_UNCHANGED = ResponseSpec(None, False, "The file is as it was", "application/octet-stream")


@post(
    "/adapters/{adapter_id:str}/exports",
    summary="Export an adapter",
    responses=documented(ExportShown, examples.QUEUED, 403, 404, 409, 413, 415, status=201),
)
async def create_export(
    data: Annotated[ExportConfig, Body(examples=[Example(value=examples.EXPORT)])],
    exports: TheExports,
    adapter_id: FromPath[str],
    idempotency_key: IdempotencyKey,
) -> ExportShown:
    """Have an adapter made into what others load, and answer before it is: it is once its status is ``completed``."""
    return ExportShown.of(await exports.create(adapter_id, data, key=idempotency_key))


@get("/exports", summary="List exports", responses=documented(ExportList, examples.LIST))
async def list_exports(
    exports: TheExports,
    adapter_id: Annotated[str | None, QueryParameter(description="Only the exports of this adapter.")] = None,
    status: Annotated[JobStatus | None, QueryParameter(description="Only exports in this state.")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="At most so many exports.")] = 20,
    cursor: Annotated[str | None, QueryParameter(description="The next_cursor of the page before.")] = None,
) -> ExportList:
    """Return exports, newest first."""
    page = await exports.list(adapter_id, status, limit, cursor)
    return ExportList(exports=[ExportShown.of(one) for one in page.exports], next_cursor=page.next_cursor)


@get("/exports/{export_id:str}", summary="Get an export", responses=documented(ExportShown, examples.DONE, 404))
async def get_export(exports: TheExports, export_id: FromPath[str]) -> ExportShown:
    """Return one export: how far it is, what came of it, or why it failed."""
    return ExportShown.of(await exports.get(export_id))


@get(
    "/exports/{export_id:str}/download",
    summary="Download an export",
    responses=documented_file("application/zip", 404, 409, 416) | {206: _PART, 304: _UNCHANGED},
)
async def download_export(
    exports: TheExports,
    export_id: FromPath[str],
    file: Annotated[str | None, QueryParameter(description="Only this file, as it is.")] = None,
    range_: Annotated[str | None, HeaderParameter(name="Range", description="With `file`: a part of it.")] = None,
    if_range: Annotated[str | None, HeaderParameter(name="If-Range")] = None,
    if_none_match: Annotated[str | None, HeaderParameter(name="If-None-Match")] = None,
) -> Response[Any]:
    """
    Send the export's files as a zip archive, or one of them.

    A file has the SHA-256 of its content as its entity tag, and is sent in ranges: a download that broke off goes on.
    """
    files = await exports.files(export_id)
    return await send_files(files, file, export_id, Wanted(range_, if_range, if_none_match))


@post(
    "/exports/{export_id:str}/cancel",
    status_code=200,
    summary="Cancel an export",
    responses=documented(ExportShown, examples.CANCELLED, 403, 404, 409),
)
async def cancel_export(exports: TheExports, export_id: FromPath[str]) -> ExportShown:
    """Stop an export; nothing half made is left of it."""
    return ExportShown.of(await exports.cancel(export_id))


@delete(
    "/exports/{export_id:str}",
    status_code=200,
    summary="Delete an export",
    responses=documented(ExportDeleted, examples.DELETED, 403, 404, 409),
)
async def delete_export(exports: TheExports, export_id: FromPath[str]) -> ExportDeleted:
    """Delete an export that has ended, its files and its record; the adapter stays as it is."""
    await exports.delete(export_id)
    return ExportDeleted(export_id=export_id)


ROUTES = [create_export, list_exports, get_export, download_export, cancel_export, delete_export]
