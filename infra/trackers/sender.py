"""The process that sends one job's metrics: started, spoken to and ended from here."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft_studio.trackers.contract import Destination, Ending, Opened, Reply, Row, TrackerUnavailable

OPEN_SECONDS, LOG_SECONDS, FINISH_SECONDS = 90.0, 60.0, 180.0
_END_SECONDS = 5.0
_GONE = "its library's process ended without a word; see sender.log in the run directory"
_NICENESS = "10"  # jobs and the API come first
_LONGEST_LINE = 1 << 20
# Whatever else is in the studio's environment, its own secrets among it, is nothing to a tracker's library.
_INHERITED = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_QUIET = {
    "DO_NOT_TRACK": "1",
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRACKIO_DISABLE_TELEMETRY": "1",
    "GIT_PYTHON_REFRESH": "quiet",
    "PYTHONUNBUFFERED": "1",
}


class Sender:
    """One process; every call raises ``TrackerUnavailable`` where it fails or takes too long."""

    def __init__(self, process: asyncio.subprocess.Process):
        self._process = process

    @classmethod
    async def start(cls, tracker: str, python: str, folder: Path) -> "Sender":
        """Start a sender that works in a folder of the run, which is its home, too."""
        folder.mkdir(parents=True, exist_ok=True)
        kept = {name: os.environ[name] for name in (*_INHERITED, *_PROXIES) if name in os.environ}
        with (folder / "sender.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *("nice", "-n", _NICENESS, python, "-m", "peft_studio.trackers", tracker),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=folder,
                env={**kept, **_QUIET, "HOME": str(folder)},
                limit=_LONGEST_LINE,
                process_group=0,
            )
        return cls(process)

    def check(self) -> None:
        """Raise ``TrackerUnavailable`` where the process is gone."""
        if self._process.returncode is not None:
            raise TrackerUnavailable(_GONE)

    async def open(self, destination: Destination) -> Opened:
        """Begin the run there, or go on with it."""
        plain = destination.model_dump(mode="json")
        plain["credentials"] = {name: secret.get_secret_value() for name, secret in destination.credentials.items()}
        opened = (await self._say({"open": plain}, OPEN_SECONDS)).opened
        if opened is None:
            raise TrackerUnavailable("its library did not say what it has opened")
        return opened

    async def log(self, rows: Sequence[Row]) -> None:
        """Hand over rows."""
        await self._say({"log": [row.model_dump() for row in rows]}, LOG_SECONDS)

    async def finish(self, ending: Ending) -> None:
        """Mark the run as ended; return when all has arrived."""
        await self._say({"finish": ending.model_dump(mode="json")}, FINISH_SECONDS)

    async def close(self) -> None:
        """End the process and what it has started, whatever it is doing."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.stdin:
            self._process.stdin.close()
        with contextlib.suppress(TimeoutError):  # something that it has started may hold on to its pipes
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()

    async def _say(self, command: dict[str, Any], seconds: float) -> Reply:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin and stdout
        try:
            async with asyncio.timeout(seconds):
                stdin.write(json.dumps(command).encode() + b"\n")
                await stdin.drain()
                line = await stdout.readline()
        except TimeoutError:
            raise TrackerUnavailable(f"it did not take them within {seconds:g} seconds") from None
        except OSError:
            line = b""
        if not line:
            raise TrackerUnavailable(_GONE)
        reply = Reply.model_validate_json(line)
        if reply.error is not None:
            raise TrackerUnavailable(reply.error, refused=reply.refused)
        return reply
