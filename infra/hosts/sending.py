"""Sending an adapter's files to addresses that a platform has signed for them, straight from the disk."""

from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import anyio
import httpx

from peft_studio.errors import ResourceUnavailable

FILES = ("adapter_config.json", "adapter_model.safetensors")
_SECONDS = 60.0  # of silence
_BYTES = 1 << 20


def sizes(folder: Path) -> dict[str, int]:
    """Return the files of an adapter that are sent, and how many bytes each has."""
    return {name: (folder / name).stat().st_size for name in FILES}


async def send(path: Path, url: str, platform: str, headers: Mapping[str, str] | None = None) -> None:
    """Put a file at an address, which is a secret; raises ``ResourceUnavailable``. May be repeated."""
    length = {"Content-Length": str(path.stat().st_size), "Content-Type": "application/octet-stream"}
    try:
        async with httpx.AsyncClient(timeout=_SECONDS, follow_redirects=False) as client:
            answer = await client.put(url, content=_pieces(path), headers={**length, **(headers or {})})
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise ResourceUnavailable(
            f"{platform}'s store of files cannot be reached ({type(error).__name__}); try again later."
        ) from None
    if answer.status_code >= 300:
        raise ResourceUnavailable(f"{platform}'s store of files answered {answer.status_code}; try again later.")


async def _pieces(path: Path) -> AsyncGenerator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while piece := await file.read(_BYTES):
            yield piece
