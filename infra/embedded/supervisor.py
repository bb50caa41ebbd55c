"""Keeps a list of programs running: starts them in order, brings back those that die, stops all of them."""

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import psutil

from peft_studio.errors import InternalError

log = logging.getLogger(__name__)

TICK_SECONDS = 0.1
START_SECONDS = 180.0
MAX_DEATHS = 5  # within DEATHS_SECONDS; one more, and there is no sense in trying again
DEATHS_SECONDS = 60.0
MAX_LOG_BYTES = 10 * 1024 * 1024
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Program:
    """A program to keep running; ``after`` names those that must be ready before it starts."""

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    is_ready: Callable[[], bool]
    after: Sequence[str] = ()
    prepare: Callable[[], None] = _nothing  # called before every start
    folder: Path | None = None
    user: int | None = None  # user and group id; by default those of the supervisor
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 1.5
    orphan_signal: signal.Signals = signal.SIGKILL  # what it gets when the supervisor itself is killed


@dataclass
class _Child:
    """A program's process, and how it has fared."""

    program: Program
    log: Path
    process: subprocess.Popen[bytes] | None = None
    is_ready: bool = False
    started_at: float = 0.0
    start_at: float = 0.0
    deaths: list[float] = field(default_factory=list[float])

    def start(self) -> None:
        program = self.program
        program.prepare()
        supervisor = os.getpid()
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                program.command,
                env=program.environment,
                cwd=program.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal reaches the supervisor alone. Not a session: niceness counts only inside one.
                process_group=0,
                user=program.user,
                group=program.user,
                extra_groups=None if program.user is None else [],
                # Safe here: the supervisor has one thread. It runs after the change of user, which would undo it.
                preexec_fn=lambda: _die_with(supervisor, program.orphan_signal),
            )
        self.is_ready = False
        self.started_at = time.monotonic()


class Supervisor:
    """Runs programs until told to stop by SIGINT, SIGTERM or SIGHUP."""

    def __init__(self, programs: Sequence[Program], logs: Path):
        self._children = [_Child(program, logs / f"{program.name}.log") for program in programs]
        self._stopping = False

    def run(self, on_ready: Callable[[], None]) -> None:
        """
        Run; call ``on_ready`` once, when all programs are ready.

        Raises ``InternalError`` when a program cannot be kept alive. Nothing that was started is left when this ends.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup wants it ignored
                signal.signal(number, self._stop)
        if _prctl:  # processes that lost their parent become children of this one, and can be found
            _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        for child in self._children:
            _rotate(child.log)
        announced = False
        try:
            while not self._stopping:
                for child in self._children:
                    self._tend(child)
                self._reap_orphans()
                if not announced and all(child.is_ready for child in self._children):
                    announced = True
                    on_ready()
                time.sleep(TICK_SECONDS)
        finally:
            self._end()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _tend(self, child: _Child) -> None:
        now = time.monotonic()
        if child.process is None:
            if now >= child.start_at and self._may_start(child.program):
                try:
                    child.start()
                except OSError as error:
                    raise InternalError(f"{child.program.name} cannot be started: {error}") from None
        elif (code := child.process.poll()) is not None:
            self._bury(child, code)
        elif not child.is_ready and child.program.is_ready():
            child.is_ready = True
            log.info("%s is ready after %.1f s", child.program.name, time.monotonic() - child.started_at)
        elif not child.is_ready and now - child.started_at > START_SECONDS:
            raise InternalError(f"{child.program.name} did not get ready in {START_SECONDS:.0f} s; read {child.log}")

    def _may_start(self, program: Program) -> bool:
        return all(child.is_ready for child in self._children if child.program.name in program.after)

    def _bury(self, child: _Child, code: int) -> None:
        """Take note of a death; plan the next start, the later the more often it died."""
        now = time.monotonic()
        child.process, child.is_ready = None, False
        child.deaths = [at for at in child.deaths if now - at < DEATHS_SECONDS] + [now]
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        if len(child.deaths) > MAX_DEATHS:
            raise InternalError(
                f"{child.program.name} {how}, for the {len(child.deaths)}th time within a minute; read {child.log}"
            )
        child.start_at = now + 0.1 * 2 ** (len(child.deaths) - 1)
        log.warning("%s %s; it is started again", child.program.name, how)

    def _reap_orphans(self) -> None:
        """Let go of ended processes that became children of this one when their own parent ended."""
        if sys.platform != "linux":
            return
        ours = {child.process.pid for child in self._children if child.process}
        while ended := _any_ended():
            if ended in ours:  # the next round of _tend sees to it
                return
            os.waitpid(ended, 0)

    def _end(self) -> None:
        """Stop all programs, the last one first, then whatever they left behind."""
        for child in reversed(self._children):
            if child.process:
                self._end_child(child.program, child.process)
        self._kill(psutil.Process().children(recursive=True))

    def _end_child(self, program: Program, process: subprocess.Popen[bytes]) -> None:
        try:
            family = [parent := psutil.Process(process.pid), *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            family = []
        process.send_signal(program.stop_signal)
        deadline = time.monotonic() + program.stop_seconds
        while time.monotonic() < deadline and (process.poll() is None or any(map(_is_alive, family))):
            time.sleep(0.02)
        self._kill(family)
        process.wait()

    def _kill(self, processes: list[psutil.Process]) -> None:
        for process in processes:
            if _is_alive(process):
                log.info("Killing %s", process)
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def _die_with(supervisor: int, number: signal.Signals) -> None:
    """In a new child: have the kernel send it a signal when the supervisor dies, however that happens."""
    if _prctl:
        _prctl(_PR_SET_PDEATHSIG, int(number))
        if os.getppid() != supervisor:  # it died before the kernel knew
            os.kill(os.getpid(), signal.SIGKILL)


def _any_ended() -> int:
    """Return a child process that has ended and was not waited for, 0 when there is none."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return ended.si_pid if ended else 0


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _rotate(path: Path) -> None:
    """Put a log that has grown large aside, in place of the one put aside before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
