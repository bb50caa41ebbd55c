"""The trainer at work on a rented machine: started, watched, told to stop, started anew where that may help."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

from peft_studio.errors import OutOfMemory, ResourceUnavailable
from peft_studio.events import Log, LogLevel
from peft_studio.oom_ladder import step_down
from peft_studio.remote import LAUNCHER_VARIABLE
from peft_studio.remote.assignment import Assignment
from peft_studio.remote.courier import Courier
from peft_studio.remote.outbox import Outbox
from peft_studio.run_dir import Request, RunDir
from peft_studio.trainer.outcome import DONE, FAILED, FULL, STOPPED
from peft_studio.trainer.stop import StopSignal

RESTARTS = 3
LOOK_SECONDS = 0.1
STOP_SECONDS = 120.0  # for the step at hand and a checkpoint
_FINAL = (DONE, FAILED, FULL, STOPPED)


class Work:
    """One assignment, carried out in a run directory."""

    def __init__(self, assignment: Assignment, run: RunDir, courier: Courier, outbox: Outbox, stop: StopSignal):
        self._assignment, self._run, self._courier, self._outbox = assignment, run, courier, outbox
        self._stop = stop
        now = time.monotonic()
        self._deadline = now + assignment.deadline_seconds
        self._pushed_at, self._checkpoint_at = 0.0, now
        self._asked_at = 0.0
        self._launcher = shlex.split(os.environ.get(LAUNCHER_VARIABLE, "")) or [sys.executable, "-m"]

    def do(self, environment: Mapping[str, str]) -> int:
        """Train, then measure what the adapter is worth; return the exit code of what ended it."""
        code = self._train(environment)
        if code == DONE and self._assignment.evaluate:
            adapter = str(self._run.adapter)
            code = self._attend("peft_studio.trainer.evaluate", environment, adapter)
        return code

    def _train(self, environment: Mapping[str, str]) -> int:
        restarts = 0
        while True:
            (self._run.path / "failure.json").unlink(missing_ok=True)
            code = self._attend("peft_studio.trainer", environment)
            failure = self._run.read_failure()
            if code == FAILED and failure and failure.code == OutOfMemory.code:
                if (layout := step_down(self._run)) is None:
                    return code
                self._say(f"Out of memory: the same steps are tried with {layout}.")
            elif (
                (code in _FINAL and not (failure and failure.code == ResourceUnavailable.code))
                or restarts == RESTARTS
                or self._stop.requested
            ):
                return code
            else:
                restarts += 1
                self._say(f"The trainer ended with code {code}; started anew from its last checkpoint.")

    def _attend(self, module: str, environment: Mapping[str, str], *arguments: str) -> int:
        """Run one program to its end; have it stop where that is ordered, or time is up."""
        with self._run.log.open("ab") as log:
            program = subprocess.Popen(
                [*self._launcher, module, str(self._run.path), *arguments, "--tied-to-stdin"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
            )
        kill_at = float("inf")
        try:
            while (code := program.poll()) is None:
                time.sleep(LOOK_SECONDS)
                self._exchange()
                if self._stop.requested and kill_at == float("inf"):
                    kill_at = time.monotonic() + STOP_SECONDS
                    program.terminate()
                if time.monotonic() > kill_at:
                    program.kill()
            return code if code >= 0 else 128 - code
        finally:
            program.kill()
            program.wait()
            if program.stdin:
                program.stdin.close()

    def _exchange(self) -> None:
        """Send what is new and hear what is wanted, now and then."""
        now = time.monotonic()
        if now - self._pushed_at < self._assignment.push_seconds:
            return
        self._pushed_at = now
        self._outbox.push()
        if orders := self._courier.orders():
            if orders.dismissed:
                self._stop.set("the studio does not want this machine any more")
            if orders.stop:
                self._stop.set(orders.stop)
            if orders.asked_at > self._asked_at:
                self._asked_at = orders.asked_at
                self._run.ask(Request.CHECKPOINT)
        if now > self._deadline:
            self._stop.set("the machine's time is up")
        if now - self._courier.heard_at > self._assignment.silence_seconds:
            self._stop.set("the studio has not answered for too long")
        self._keep_checkpoints_coming(now)

    def _keep_checkpoints_coming(self, now: float) -> None:
        with suppress(OSError):
            newest = max((path.stat().st_mtime for path in self._run.checkpoints.glob("step-*")), default=0.0)
            self._checkpoint_at = max(self._checkpoint_at, now - (time.time() - newest))
        if now - self._checkpoint_at > self._assignment.checkpoint_seconds:
            self._checkpoint_at = now
            self._run.ask(Request.CHECKPOINT)

    def _say(self, message: str, level: LogLevel = "WARNING") -> None:
        self._run.append(Log(job_id=self._run.job_id, level=level, message=message))
