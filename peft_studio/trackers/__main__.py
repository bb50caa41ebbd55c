"""
Send one job's metrics to one tracker.

    python -m peft_studio.trackers wandb < commands > replies

What libraries print goes to the standard error. The process ends soon after its standard input does, whatever its
library is doing then.
"""

import fcntl
import importlib
import os
import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from peft_studio.trackers.contract import Command, Destination, Opened, Reply, Tracker, TrackerUnavailable
from peft_studio.trackers.table import LIBRARIES

_GRACE_SECONDS = 3.0


def commands() -> Iterator[str]:
    """Yield lines as they come; a thread reads them, so that the end is noticed while a library keeps us waiting."""
    lines: queue.Queue[str | None] = queue.Queue()
    given = os.fdopen(os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # processes that a library starts hold nothing of ours

    def read() -> None:
        for line in given:
            lines.put(line)
        lines.put(None)
        threading.Event().wait(_GRACE_SECONDS)
        os._exit(1)

    threading.Thread(target=read, name="commands", daemon=True).start()
    while (line := lines.get()) is not None:
        yield line


def wait_for_predecessor() -> None:
    """Wait until no other sender works in this working directory, which is the run's; one that was killed does not."""
    lock = os.open("sender.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)  # until this process ends


def obey(tracker: Tracker, command: Command) -> Opened | None:
    """Do what a line says."""
    if command.open is not None:
        destination = Destination.model_validate(command.open)
        wait_for_predecessor()
        Path(destination.folder).mkdir(parents=True, exist_ok=True)
        return tracker.open(destination)
    if command.log is not None:
        tracker.log(command.log)
    if command.finish is not None:
        tracker.finish(command.finish)
    return None


def main(name: str) -> None:
    """Answer every line until there are no more."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print
    module, _, kind = LIBRARIES[name].sender.partition(":")
    made: list[Tracker] = []
    for line in commands():
        try:
            tracker = made[0] if made else getattr(importlib.import_module(module), kind)()
            made = [tracker]
            reply = Reply(opened=obey(tracker, Command.model_validate_json(line)))
        except TrackerUnavailable as error:
            reply = Reply(error=str(error), refused=error.refused)
        except Exception as error:  # of the library, which may raise whatever it likes; its text may hold a key
            reply = Reply(error=f"its library failed with {type(error).__name__}")
        print(reply.model_dump_json(), file=replies)
    os._exit(0)  # nothing that a library has left behind is waited for


if __name__ == "__main__":
    main(sys.argv[1])
