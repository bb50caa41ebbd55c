"""This machine: costs nothing, is always there."""

import subprocess
import sys

from infra.providers.base import STOP_SECONDS, Machine
from peft_studio.plan import Plan
from peft_studio.run_dir import RunDir


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


class LocalProvider:
    """Runs trainers as child processes."""

    def rent(self, plan: Plan, job_id: str) -> Machine:
        """Return this machine."""
        return Machine(provider="local", resource_id="local", hourly_rate=0.0)

    def start(self, machine: Machine, run: RunDir) -> LocalAttempt:
        """Start a trainer here."""
        return LocalAttempt("peft_studio.trainer", run, "--tied-to-stdin")

    def release(self, machine: Machine) -> float:
        """Nothing to give back, nothing to pay."""
        return 0.0
