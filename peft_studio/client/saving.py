"""Calls whose answers are files: an adapter's or an export's, all of them or one."""

from pathlib import Path

import httpx

from peft_studio.client.bodies import Progress
from peft_studio.client.calls import Call
from peft_studio.client.downloads import Download

TRANSFER_SECONDS = 600.0  # how long a file may take to go up or come down


def download_of(
    where: str, to: str | Path, file: str | None, sha256: str | None, progress: Progress | None
) -> Call[Path]:
    """Ask for a zip of some files, or one ``file`` of them, and return where it was saved."""
    target = Path(to)

    def saved(_: httpx.Response) -> Path:
        return target

    into = Download(target, sha256=sha256, progress=progress)
    return Call("GET", where, saved, {"file": file}, into=into, seconds=TRANSFER_SECONDS)
