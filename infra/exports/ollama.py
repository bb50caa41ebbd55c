"""Handing a model to the connected Ollama daemon: its weights as a blob, then what it is made of."""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from peft_studio.errors import ExportFailed, ResourceUnavailable

_PIECE = 1 << 20
_CONNECT_SECONDS = 10.0
_SILENT_SECONDS = 600.0  # the daemon reads all of a large file before it answers
_MOST_LINE = 300


async def create_model(
    url: str, name: str, weights: Path, sha256: str, template: str, parameters: Mapping[str, Any]
) -> None:
    """
    Have the daemon at ``url`` create a model, replacing one of this name; doing it again does no harm.

    Raises ``ResourceUnavailable`` where the daemon cannot be reached, ``ExportFailed`` with its words where it
    refuses; in the middle of its answer it says so in a line of its own, below a status of 200.
    """
    digest = f"sha256:{sha256}"
    timeout = httpx.Timeout(_SILENT_SECONDS, connect=_CONNECT_SECONDS)
    try:
        async with httpx.AsyncClient(base_url=url, timeout=timeout) as client:
            if (await client.head(f"/api/blobs/{digest}")).status_code != 200:
                size = {"Content-Length": str(weights.stat().st_size)}
                answer = await client.post(f"/api/blobs/{digest}", content=_pieces(weights), headers=size)
                _require(answer.status_code in (200, 201), answer.status_code, answer.text)
            wanted = {
                "model": name,
                "files": {weights.name: digest},
                "template": template,
                "parameters": dict(parameters),
                "stream": True,
            }
            async with client.stream("POST", "/api/create", json=wanted) as stream:
                if stream.status_code != 200:
                    _require(False, stream.status_code, (await stream.aread()).decode(errors="replace"))
                await _until_success([line async for line in stream.aiter_lines()])
    except httpx.TransportError as error:
        host = urlsplit(url).netloc
        raise ResourceUnavailable(f"Ollama at {host} cannot be reached ({type(error).__name__}).") from error


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


async def _until_success(lines: list[str]) -> None:
    last: dict[str, Any] = {}
    for line in lines:
        try:
            last = json.loads(line)
        except ValueError:
            continue
        if "error" in last:
            raise ExportFailed(f"Ollama did not create the model: {str(last['error'])[:_MOST_LINE]}")
    if last.get("status") != "success":
        raise ResourceUnavailable("Ollama stopped in the middle of creating the model.")


def _require(holds: bool, status: int, text: str) -> None:
    if holds:
        return
    if status >= 500 or status == 429:
        raise ResourceUnavailable(f"Ollama answers {status}.")
    raise ExportFailed(f"Ollama did not take the model ({status}): {text[:_MOST_LINE]}")
