"""Data sets that arrive in pieces: resumable uploads by the tus protocol, for which there are clients everywhere."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from litestar import Request, Response, Router, delete, head, patch, post, route
from litestar.di import NamedDependency
from litestar.enums import HttpMethod
from litestar.params import FromPath, HeaderParameter, SkipValidation

from api import examples, tus
from api.dataset_files import PieceOperation, TusOperation, record_of
from api.errors import UnsupportedMediaType
from api.openapi import documented, documented_without_body
from api.uploads import chunks_of
from api.wire import UploadBegun
from infra.datasets.stored import Datasets
from infra.settings import Settings
from infra.uploads import Upload, UploadRecord, Uploads, UploadState, dataset_id_of, is_upload_id
from peft_studio.errors import Conflict, NotFound, PayloadTooLarge
from peft_studio.stored_datasets import Dataset

TheDatasets = NamedDependency[SkipValidation[Datasets]]
TheUploads = NamedDependency[SkipValidation[Uploads]]
TheSettings = NamedDependency[SkipValidation[Settings]]
_AT_ONCE = 1 << 20  # bytes that are gathered before they are written
AnyRequest = Request[Any, Any, Any]


@route(
    "/datasets/uploads",
    http_method=HttpMethod.OPTIONS,
    status_code=204,
    summary="Ask what resumable uploads can do",
    responses=documented_without_body(204),
)
async def describe_uploads(settings: TheSettings) -> Response[None]:
    """Name the version of tus, its extensions, and the most bytes of a data set, in headers."""
    headers = {
        "Tus-Version": tus.VERSION,
        "Tus-Extension": tus.EXTENSIONS,
        "Tus-Max-Size": str(settings.max_dataset_bytes),
    }
    return Response(None, status_code=204, headers=headers)


@post(
    "/datasets/uploads",
    summary="Begin a resumable upload",
    operation_class=TusOperation,
    responses=documented(UploadBegun, examples.UPLOAD, 403, 412, 413, status=201),
)
async def begin_upload(
    uploads: TheUploads,
    upload_length: Annotated[int, HeaderParameter(name="Upload-Length", ge=1, description="Bytes in all.")],
    upload_metadata: Annotated[
        str,
        HeaderParameter(
            name="Upload-Metadata",
            max_length=tus.LONGEST_METADATA,
            description="`filename` in Base64, which tells the type; optionally `name` and `sha256`.",
        ),
    ],
) -> Response[UploadBegun]:
    """
    Announce a file by its length and its name; its bytes go to the address in `Location`.

    An upload that was broken off waits a day for its sender. Each request counts towards the limit of requests: send
    large pieces, or all in one, and go on from `Upload-Offset` where that breaks.
    """
    metadata = tus.metadata_of(upload_metadata)
    names = metadata.get("filename", ""), metadata.get("name"), metadata.get("sha256")
    record = record_of(*names, upload_length, upload_metadata, field="Upload-Metadata")
    upload_id = await asyncio.to_thread(_begin, uploads, record)
    state = await asyncio.to_thread(uploads.look_at, upload_id)
    begun = UploadBegun(upload_id=upload_id, offset=0, length=state.record.length, expires_at=state.expires_at)
    location = f"/api/v1/datasets/uploads/{upload_id}"
    return Response(begun, headers={"Location": location, "Upload-Expires": tus.http_date(state.expires_at)})


def _begin(uploads: Uploads, record: UploadRecord) -> str:
    upload = uploads.begin(record.length)
    try:
        upload.describe(record)
    finally:
        upload.close()
    return upload.id


@head(
    "/datasets/uploads/{upload_id:str}",
    summary="Ask how far an upload has come",
    operation_class=TusOperation,
    responses=documented_without_body(200, 404, 409, 412),
)
async def look_at_upload(datasets: TheDatasets, uploads: TheUploads, upload_id: FromPath[str]) -> Response[None]:
    """
    Say in `Upload-Offset` where to go on, and in `Dataset-Id` what a whole upload has become.

    Of an upload whose bytes are all there, but that the studio was killed over, it makes the data set first.
    """
    try:
        state = await asyncio.to_thread(uploads.look_at, upload_id)
    except NotFound:
        if not is_upload_id(upload_id):
            raise
        return _whole(await datasets.get(dataset_id_of(upload_id)))
    if state.offset < state.record.length:
        return Response(None, headers=_headers(state))
    upload = await asyncio.to_thread(uploads.open, upload_id)
    try:
        return _whole(await datasets.take(upload))
    finally:
        await asyncio.to_thread(upload.close)


@patch(
    "/datasets/uploads/{upload_id:str}",
    status_code=204,
    summary="Send more of an upload",
    operation_class=PieceOperation,
    request_max_body_size=None,  # the announced length is what counts here
    responses=documented_without_body(204, 403, 404, 409, 412, 413, 415),
)
async def append_to_upload(
    request: AnyRequest,
    datasets: TheDatasets,
    uploads: TheUploads,
    upload_id: FromPath[str],
    upload_offset: Annotated[int, HeaderParameter(name="Upload-Offset", ge=0, description="Where these bytes belong.")],
) -> Response[None]:
    """
    Add bytes where the last ones ended; what came of a request that breaks off is kept.

    The one that makes the upload whole is answered when the data set is there, with its `Dataset-Id`; a file that is
    no data set is refused then, and the upload is gone.
    """
    async with chunks_of(request) as chunks:
        if request.content_type[0] != tus.PIECE:
            raise UnsupportedMediaType(f"The request body must be {tus.PIECE}.", expected=tus.PIECE)
        upload = await asyncio.to_thread(uploads.open, upload_id)
        try:
            await asyncio.to_thread(_check, uploads, upload, upload_offset, request.content_length)
            await _append(chunks, upload)
            await asyncio.to_thread(upload.sync)
            if upload.is_whole:
                return _whole(await datasets.take(upload), status=204)
        finally:
            await asyncio.to_thread(upload.close)
    state = await asyncio.to_thread(uploads.look_at, upload_id)
    return Response(None, status_code=204, headers=_headers(state))


def _check(uploads: Uploads, upload: Upload, offset: int, length: int | None) -> None:
    if offset != upload.offset:
        raise Conflict(
            f"The upload has {upload.offset} bytes: go on from there.", field="Upload-Offset", offset=upload.offset
        )
    rest = upload.record.length - offset
    if (length or 0) > rest:
        raise PayloadTooLarge(f"Only {rest} bytes are missing in this upload.", limit_bytes=rest)
    uploads.require_space(rest)


async def _append(chunks: AsyncGenerator[bytes, None], upload: Upload) -> None:
    held = bytearray()
    try:
        async for chunk in chunks:
            held += chunk
            if len(held) >= _AT_ONCE:
                block, held = held, bytearray()
                await asyncio.to_thread(upload.append, block)
    finally:  # also where the sender has gone: what came counts
        await asyncio.to_thread(upload.append, held)


@delete(
    "/datasets/uploads/{upload_id:str}",
    summary="Give up an upload",
    operation_class=TusOperation,
    responses=documented_without_body(204, 403, 404, 409, 412),
)
async def give_up_upload(uploads: TheUploads, upload_id: FromPath[str]) -> None:
    """Remove what has come of an upload that is not whole."""

    def give_up() -> None:
        upload = uploads.open(upload_id)
        upload.discard()
        upload.close()

    await asyncio.to_thread(give_up)


def _whole(dataset: Dataset, status: int = 200) -> Response[None]:
    size = str(dataset.size_bytes)
    headers = {"Upload-Offset": size, "Upload-Length": size, "Dataset-Id": dataset.dataset_id}
    return Response(None, status_code=status, headers={**headers, "Cache-Control": "no-store"})


def _headers(state: UploadState) -> dict[str, str]:
    return {
        "Upload-Offset": str(state.offset),
        "Upload-Length": str(state.record.length),
        "Upload-Metadata": state.record.metadata,
        "Upload-Expires": tus.http_date(state.expires_at),
        "Cache-Control": "no-store",
    }


RESUMABLE_UPLOADS = Router(
    "/",
    route_handlers=[describe_uploads, begin_upload, look_at_upload, append_to_upload, give_up_upload],
    middleware=[tus.TusVersion()],
)
