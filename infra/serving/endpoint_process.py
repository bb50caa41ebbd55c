"""An endpoint as a child process."""

import asyncio
import hashlib
import socket
import subprocess
import sys
import time
from asyncio.subprocess import Process
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from infra.serving.endpoint_client import EndpointClient

UNSERVABLE = 2  # the exit code that says that trying again is of no use
_STOP_SECONDS = 5.0
_LAST_WORDS = 500


class Base(NamedTuple):
    """The base model that an endpoint holds."""

    source: str
    revision: str | None


class EndpointProcess:
    """Starts an endpoint on a port of this machine, and ends it; its output goes to a log of its own."""

    def __init__(self, base: Base, port: int, logs: Path):
        self._base = base
        self._port = port
        self._log = logs / f"endpoint-{hashlib.sha256(repr(base).encode()).hexdigest()[:12]}.log"
        self._log_start = 0
        self._process: Process | None = None
        self._started = 0.0
        self.url = f"http://127.0.0.1:{port}/v1"
        self.client = EndpointClient(self.url)

    async def start(self) -> None:
        """Start it, warm if it can be; it answers once its model is loaded."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        source, revision = self._base
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "infra.warm", "run", "infra.serving.endpoint"),
                *("--base", source, "--port", str(self._port)),
                *(("--revision", revision) if revision else ()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._started = time.monotonic()

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.returncode if self._process else None

    @property
    def age_seconds(self) -> float:
        """How long ago it was started."""
        return time.monotonic() - self._started

    def last_words(self) -> str:
        """Return the last line that it wrote."""
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:_LAST_WORDS] if lines else "nothing"

    async def stop(self) -> None:
        """End it: first with a request, then by force."""
        await self.client.close()
        if self._process is None or self._process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()


def is_free(port: int) -> bool:
    """Whether an endpoint could listen on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
