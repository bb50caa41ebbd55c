"""Being the one process that runs a flow run, and showing by a file's time that it lives."""

import fcntl
import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from prefect.exceptions import Abort

HEARTBEAT = "heartbeat"  # a file in the run's folder, touched while its process lives
HEARTBEAT_SECONDS = 2.0
_PREDECESSOR_SECONDS = 30.0  # a process that was told to stop is gone long before


@contextmanager
def alone(folder: Path) -> Generator[None]:
    """
    Be the one process that runs the flow run of a folder, and show by heartbeats that it lives.

    One before it that is still ending is waited for; where it does not end, this process leaves the run to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "flow.lock").open("a") as lock:
        deadline = time.monotonic() + _PREDECESSOR_SECONDS
        while not _locked(lock):
            if time.monotonic() > deadline:
                raise Abort(f"Another process runs {folder.name}.")
            time.sleep(0.1)
        with _heartbeat(folder / HEARTBEAT):
            yield


def last_beat(folder: Path) -> float:
    """Return when a run's process last showed that it lives, by the clock of files (seconds); 0 where it never did."""
    try:
        return (folder / HEARTBEAT).stat().st_mtime
    except FileNotFoundError:
        return 0.0


@contextmanager
def _heartbeat(path: Path) -> Generator[None]:
    """Touch the heartbeat file, which names this process, until the block ends; a dead process touches nothing."""
    path.write_text(f"{os.getpid()}\n")
    ended = threading.Event()

    def beat() -> None:
        while True:
            path.touch()
            if ended.wait(HEARTBEAT_SECONDS):
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _locked(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
