"""The thread that the model runs in: one step after the other while there is work, asleep otherwise."""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from infra.serving.generation import Generation
from infra.serving.scheduler import Delivery, Scheduler

T = TypeVar("T")
log = logging.getLogger(__name__)
_BROKEN = 70


class Engine:
    """Runs a scheduler; everything that touches the model goes through here."""

    def __init__(self, scheduler: Scheduler):
        self.scheduler = scheduler
        self._changed = threading.Condition()
        self._commands: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self, deliver: Callable[[list[Delivery]], None]) -> None:
        """Start; ``deliver`` is called in the engine's thread with the pieces of each step."""
        self._thread = threading.Thread(target=self._run, args=(deliver,), name="engine", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the current step."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread:
            self._thread.join()

    def submit(self, generation: Generation) -> None:
        """Queue a generation; raises what ``Scheduler.add`` does."""
        with self._changed:
            self.scheduler.add(generation)
            self._changed.notify()

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Have a function run between two steps."""
        result: Future[T] = Future()

        def command() -> None:
            try:
                result.set_result(function())
            except Exception as error:
                result.set_exception(error)

        with self._changed:
            self._commands.append(command)
            self._changed.notify()
        return result

    def _run(self, deliver: Callable[[list[Delivery]], None]) -> None:
        try:
            while self._wait():
                while self._commands:
                    self._commands.popleft()()
                if pieces := self.scheduler.step():
                    deliver(pieces)
        except BaseException:
            log.exception("The engine broke; the process ends, so that another takes its place.")
            os._exit(_BROKEN)

    def _wait(self) -> bool:
        """Sleep until there is something to do; return whether to go on at all."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._commands or not self.scheduler.is_idle)
            return not self._stopping
