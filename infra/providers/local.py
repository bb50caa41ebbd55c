"""This machine: it costs nothing, is always there, and runs trainers as child processes."""

import os
import subprocess
import sys

from peft_studio.run_dir import RunDir
from peft_studio.trainer.allocator import allocator_environment

STOP_SECONDS = 8.0


class LocalAttempt:
    """A trainer process on this machine."""

    def __init__(self, module: str, run: RunDir, *arguments: str):
        run.path.mkdir(parents=True, exist_ok=True)
        with run.log.open("ab") as log:
            # The trainer reads the end of this pipe as the end of its owner, however that came about.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "infra.warm", "run", module, str(run.path), *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | allocator_environment(),
            )

    def poll(self) -> int | None:
        """Return the exit code, or None while it works; negative or above 128 when a signal ended it."""
        return self._process.poll()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End the process: first with a request to save a checkpoint, then by force."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
