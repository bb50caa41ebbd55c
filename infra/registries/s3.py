"""
A prefix of a bucket as a registry: a folder for each version, named by its content.

Below ``s3://BUCKET/PREFIX/VERSION/`` lie the adapter's files and, put there last, ``manifest.json``: a folder without
it is no version. S3 shows an object whole or not at all, so that those of a push that broke off are kept.
"""

import shutil
from typing import Any, cast

import aiohttp
import s3fs
from botocore.exceptions import BotoCoreError, ClientError

from infra.registries.parcel import MANIFEST, Parcel, Pushed
from peft_studio.errors import (
    Conflict,
    CredentialRefused,
    NotFound,
    PermissionDenied,
    ResourceUnavailable,
    StudioError,
)
from peft_studio.hashed_file import HashedFile
from peft_studio.registries import S3Registry

_PART = 16 << 20  # S3 takes parts of 5 MiB and more, at most 10,000
_PIECE = 1 << 20
_BAD_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken")
_TIMES = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 4, "mode": "standard"}}


def file_system(values: dict[str, str]) -> Any:
    """Open the account's buckets."""
    return cast(Any, s3fs).S3FileSystem(
        key=values["access_key_id"],
        secret=values["secret_access_key"],
        token=values.get("session_token"),
        endpoint_url=values.get("endpoint_url"),
        client_kwargs={"region_name": values["region"]} if "region" in values else {},
        config_kwargs=_TIMES,
        use_listings_cache=False,
        skip_instance_cache=True,
    )


def push(registry: S3Registry, parcel: Parcel, values: dict[str, str], address: str) -> Pushed:
    """Put a version below the prefix; raises a ``StudioError`` that says whether it would help to wait."""
    version = parcel.manifest.version
    home = f"{registry.place.removeprefix('s3://')}/{version}"
    try:
        files = file_system(values)
        if not files.exists(f"{home}/{MANIFEST}"):
            _send(files, home, parcel)
    except (OSError, BotoCoreError, ClientError, aiohttp.ClientError) as error:
        raise _meaning(error, registry) from None
    return Pushed(version=version, revision=version, url=f"s3://{home}")


def _send(files: Any, home: str, parcel: Parcel) -> None:
    there = {name.removeprefix(f"{home}/"): entry["size"] for name, entry in files.find(home, detail=True).items()}
    for name in parcel.from_disk:
        if there.get(name) != parcel.manifest.files[name].size_bytes:
            _put(files, f"{home}/{name}", parcel, name)
    for name, text in parcel.written.items():
        files.pipe_file(f"{home}/{name}", text.encode())
    files.pipe_file(f"{home}/{MANIFEST}", parcel.last)


def _put(files: Any, target: str, parcel: Parcel, name: str) -> None:
    """Send a file, hashed as it is read; one that is another than it was is not put in its place."""
    out = files.open(target, "wb", block_size=_PART)
    try:
        with (parcel.folder / name).open("rb", buffering=0) as file:
            hashed = HashedFile(cast(Any, file))
            shutil.copyfileobj(hashed, out, _PIECE)
            digest = hashed.digest()
        if digest != parcel.manifest.files[name].sha256:
            raise Conflict(f"The adapter's file {name!r} has changed since it was stored; it is not published.")
    except BaseException:
        out.discard()
        out.closed = True  # closing would complete it
        raise
    out.close()


def _meaning(error: Exception, registry: S3Registry) -> StudioError:
    response = getattr(error.__cause__ or error, "response", None) or {}
    code = response.get("Error", {}).get("Code", "")
    if code in _BAD_KEYS:
        return CredentialRefused(f"S3 refused the credentials ({code}); connect s3 again with valid ones.")
    if isinstance(error, PermissionError):
        return PermissionDenied(f"The connected credentials may not list and write in {registry.place}.")
    if isinstance(error, FileNotFoundError):
        return NotFound(f"There is no bucket for {registry.place}; create it first.")
    return ResourceUnavailable(f"The bucket of {registry.place} cannot be used now ({code or type(error).__name__}).")
