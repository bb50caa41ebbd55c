"""How a running trainer is asked to stop: by a signal, or by the death of the process that started it."""

import os
import signal
import threading
from types import FrameType


class Stopped(Exception):
    """The work was left at a point from which it can be taken up again."""


class StopSignal:
    """A wish to stop, made once from anywhere and looked at between two pieces of work."""

    def __init__(self) -> None:
        self._reason: str | None = None

    @property
    def requested(self) -> bool:
        """Whether to stop at the next opportunity."""
        return self._reason is not None

    @property
    def reason(self) -> str:
        """Who wished it; empty while nobody did."""
        return self._reason or ""

    def set(self, reason: str) -> None:
        """Ask for a stop; the first reason counts."""
        self._reason = self._reason or reason

    def check(self) -> None:
        """Raise ``Stopped`` where a stop was asked for."""
        if self.requested:
            raise Stopped(self.reason)


def stop_on_signals(stop: StopSignal) -> None:
    """Take SIGTERM and SIGINT as the wish to stop; to be called from the main thread."""

    def handle(number: int, _: FrameType | None) -> None:
        stop.set(f"{signal.Signals(number).name} received")

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def stop_on_end_of_stdin(stop: StopSignal) -> None:
    """Take the end of standard input as the wish to stop: the process at its other end is gone."""

    def wait() -> None:
        try:
            while os.read(0, 4096):
                pass
        except OSError:
            pass  # a closed or broken input has ended too
        stop.set("the process that started the trainer is gone")

    threading.Thread(target=wait, name="owner-watch", daemon=True).start()
