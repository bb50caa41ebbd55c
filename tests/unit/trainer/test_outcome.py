import errno
import fcntl
import resource
import threading
import time
from pathlib import Path

import pytest

from peft_studio.errors import InvalidConfig, StudioError, TrainingFailed
from peft_studio.run_dir import RunDir
from peft_studio.trainer.outcome import BUSY, CRASHED, DONE, FAILED, FULL, STOPPED, attempt
from peft_studio.trainer.report import Reporter
from peft_studio.trainer.stop import Stopped, StopSignal


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def fail_with(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "kind", "message"),
    [
        (InvalidConfig("No.", field="rank", issue="Lower it."), FAILED, "INVALID_CONFIG", "No."),
        (TrainingFailed("It broke."), FAILED, "TRAINING_FAILED", "It broke."),
        (KeyError("x"), CRASHED, "INTERNAL_ERROR", "KeyError: 'x'"),
        (RuntimeError("first\nsecond"), CRASHED, "INTERNAL_ERROR", "RuntimeError: first"),
        (MemoryError(), FAILED, "OUT_OF_MEMORY", "Out of memory"),
        (OSError(errno.ENOSPC, "No space left on device"), FULL, "DISK_FULL", "The disk is full."),
        (
            OSError(errno.EACCES, "Permission denied"),
            CRASHED,
            "INTERNAL_ERROR",
            "PermissionError: [Errno 13] Permission denied",
        ),
    ],
)
def test_an_error_becomes_an_exit_code_and_a_failure(
    error: Exception, code: int, kind: str, message: str, run: RunDir
) -> None:
    assert attempt(run, StopSignal(), lambda: fail_with(error)) == code
    failure = run.read_failure()
    assert failure is not None
    assert (failure.code, failure.error) == (kind, message)
    assert [event for _, event in run.events()] == [failure]


def test_a_failure_says_the_field_and_what_to_do(run: RunDir) -> None:
    attempt(run, StopSignal(), lambda: fail_with(InvalidConfig("No.", field="rank", issue="Lower it.", row=3)))
    assert run.read_failure().details == "rank: Lower it. (row 3)"  # pyright: ignore[reportOptionalMemberAccess]


def test_a_stop_is_no_failure(run: RunDir) -> None:
    assert attempt(run, StopSignal(), lambda: fail_with(Stopped())) == STOPPED
    assert run.read_failure() is None


def test_a_new_attempt_forgets_how_the_last_one_failed(run: RunDir) -> None:
    attempt(run, StopSignal(), lambda: fail_with(StudioError("No.")))
    assert attempt(run, StopSignal(), lambda: None) == DONE
    assert run.read_failure() is None


def test_a_second_trainer_waits_for_the_first(run: RunDir) -> None:
    order: list[str] = []
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        inside.set()
        leave.wait(10)
        order.append("first")

    holder = threading.Thread(target=lambda: attempt(run, StopSignal(), first))
    holder.start()
    inside.wait(10)
    waiter = threading.Thread(target=lambda: attempt(run, StopSignal(), lambda: order.append("second")))
    waiter.start()
    leave.set()
    holder.join(10)
    waiter.join(10)
    assert order == ["first", "second"]


def test_a_trainer_that_waits_in_vain_says_so(run: RunDir) -> None:
    with (run.path / "trainer.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert attempt(run, StopSignal(), lambda: None, patience=0.2) == BUSY
    failure = run.read_failure()
    assert failure is not None
    assert "Another trainer" in failure.error


def test_a_waiting_trainer_can_be_stopped(run: RunDir) -> None:
    stop = StopSignal()
    stop.set("enough")
    started = time.monotonic()
    with (run.path / "trainer.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert attempt(run, stop, lambda: None) == STOPPED
    assert time.monotonic() - started < 5


def test_events_wait_for_room_on_a_full_disk(run: RunDir) -> None:
    reporter = Reporter(run)
    reporter.step(1, {"loss": 1.0})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (run.events_path.stat().st_size + 20, limits[1]))
    try:
        reporter.step(2, {"loss": 2.0})
        reporter.step(3, {"loss": 3.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    reporter.step(4, {"loss": 4.0})
    steps = [event.metrics["step"] for _, event in run.events() if event.type == "metrics"]
    assert steps == [1, 2, 3, 4]


def test_the_first_reason_to_stop_counts() -> None:
    stop = StopSignal()
    assert not stop.requested
    stop.check()
    stop.set("one")
    stop.set("two")
    assert stop.requested
    assert stop.reason == "one"
    with pytest.raises(Stopped, match="one"):
        stop.check()
