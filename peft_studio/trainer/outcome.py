"""How an attempt ends: the exit codes, and the failure that is left behind for whoever started it."""

import fcntl
import sys
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager

from peft_studio.errors import Conflict, DiskFull, InternalError, OutOfMemory, StudioError
from peft_studio.events import Failure
from peft_studio.run_dir import RunDir
from peft_studio.trainer.report import DISK_FULL, Reporter
from peft_studio.trainer.stop import Stopped, StopSignal

DONE = 0
FAILED = 64  # a StudioError: the same input would fail again
CRASHED = 70  # anything else: another attempt may go better
FULL = 74  # the disk is full, maybe too full to leave a word about it
BUSY = 73  # another trainer holds the run directory
STOPPED = 75  # a stop was asked for: start again to go on

LOCK_PATIENCE = 30.0  # seconds in which a predecessor that was told to stop should have stopped


class Busy(Conflict):
    """Another trainer is at work in this run directory."""


class Ended(Exception):
    """The work ended in other processes, which have said why; this is the code that says it."""

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code


def attempt(run: RunDir, stop: StopSignal, work: Callable[[], None], patience: float = LOCK_PATIENCE) -> int:
    """Do the work as the run directory's only trainer, and return the exit code that says how it ended."""

    def alone() -> None:
        with _alone(run, stop, patience):
            (run.path / "failure.json").unlink(missing_ok=True)
            work()

    return ending(run, alone)


def ending(run: RunDir, work: Callable[[], None], *, is_member: bool = False) -> int:
    """
    Do the work and return the exit code that says how it ended; leave a failure behind where it did not end well.

    Of several processes (``is_member``) the first that fails leaves the failure, and who started them reports it.
    """
    try:
        work()
        return DONE
    except Ended as ended:
        return ended.code
    except Stopped as stopped:
        print(f"Stopped: {stopped}", file=sys.stderr)
        return STOPPED
    except Busy as error:
        return _fail(run, error, BUSY, is_member)
    except StudioError as error:
        return _fail(run, error, FAILED, is_member)
    except Exception as error:
        if _is_out_of_memory(error):
            return _fail(run, OutOfMemory("Out of memory", issue=_memory_advice(error)), FAILED, is_member)
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return _fail(run, DiskFull(issue=f"Make room, then retry the job ({error})."), FULL, is_member)
        traceback.print_exc()
        line = (str(error).strip() or "no message").splitlines()[0]
        crash = InternalError(f"{type(error).__name__}: {line}", issue="See the trainer's log.")
        return _fail(run, crash, CRASHED, is_member)


@contextmanager
def _alone(run: RunDir, stop: StopSignal, patience: float) -> Generator[None]:
    deadline = time.monotonic() + patience
    with (run.path / "trainer.lock").open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                stop.check()
                if time.monotonic() > deadline:
                    raise Busy(issue="Wait until it has finished, or stop it.") from None
                time.sleep(0.1)
        yield


def _fail(run: RunDir, error: StudioError, code: int, is_member: bool) -> int:
    failure = Failure(job_id=run.job_id, error=error.message, details=describe(error), code=error.code)
    print(f"{error.message} {failure.details}".strip(), file=sys.stderr)
    if is_member and run.read_failure() is not None:
        return code  # that another one failed is why this one did
    try:
        run.write("failure.json", failure)
        if not is_member:
            Reporter(run).failure(failure)
    except OSError:
        traceback.print_exc()  # the exit code still tells
    return code


def describe(error: StudioError) -> str:
    """Say an error's details as one line: the field, then what is wrong with it or what to do, then the rest."""
    details = dict(error.details)
    first = ": ".join(str(details.pop(name)) for name in ("field", "issue") if name in details)
    rest = ", ".join(f"{name} {value}" for name, value in details.items())
    return " ".join(filter(None, (first, f"({rest})" if rest else "")))


def _is_out_of_memory(error: Exception) -> bool:
    # torch.OutOfMemoryError by name: an attempt that failed before torch was loaded need not load it now.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator" in str(error)
    )


def _memory_advice(error: Exception) -> str:
    where = "Memory" if isinstance(error, MemoryError) or "CPUAllocator" in str(error) else "GPU memory"
    return (
        f"{where} exceeded: lower batch_size (and raise gradient_accumulation_steps as much) or max_length, "
        "or hold the base model in int4."
    )
