"""What serves a base model and its adapters on this machine, as a child process: the studio's own endpoint, or vLLM."""

import asyncio
import hashlib
import os
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from infra.serving.endpoint_client import EndpointClient
from infra.serving.leash import GRACE_SECONDS
from infra.settings import Settings

_STOP_SECONDS = GRACE_SECONDS + 1
_LAST_WORDS = 500


class Base(NamedTuple):
    """The base model that an endpoint holds."""

    source: str
    revision: str | None


class EndpointProcess(ABC):
    """
    Starts an endpoint on a port of this machine, and ends it; its output goes to a log of its own.

    Whatever it is, it speaks vLLM's HTTP: OpenAI's routes, and two by which adapters are loaded and unloaded.
    """

    name: str  # of its log

    def __init__(self, base: Base, port: int, settings: Settings):
        self._base = base
        self._port = port
        self._settings = settings
        self._log = settings.logs / f"{self.name}-{hashlib.sha256(repr(base).encode()).hexdigest()[:12]}.log"
        self._log_start = 0
        self._process: Process | None = None
        self._started = 0.0
        self.url = f"http://127.0.0.1:{port}/v1"
        self.client = EndpointClient(self.url)

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Return what is run; it ends when this process does."""
        ...

    @abstractmethod
    def environment(self) -> Mapping[str, str]:
        """Return the variables that it has besides those of this process."""
        ...

    async def start(self) -> None:
        """Start it; it answers once its model is loaded."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *self.command(),
                env={**os.environ, **self.environment()},
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


class OwnEndpoint(EndpointProcess):
    """The studio's own endpoint, started warm where it can be."""

    name = "endpoint"

    def command(self) -> Sequence[str]:
        """Return the endpoint's command."""
        source, revision = self._base
        return (
            *(sys.executable, "-m", "infra.warm", "run", "infra.serving.endpoint"),
            *("--base", source, "--port", str(self._port)),
            *(("--revision", revision) if revision else ()),
        )

    def environment(self) -> Mapping[str, str]:
        """Return nothing more."""
        return {}


def is_free(port: int) -> bool:
    """Whether an endpoint could listen on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
