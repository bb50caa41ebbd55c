"""What a rented machine sends while it works: events and log as they grow, checkpoints, and in the end the adapter."""

import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ValidationError

from peft_studio.errors import Unreachable
from peft_studio.oom_ladder import FILE as LAYOUT
from peft_studio.remote.assignment import ADAPTER, ALIVE, CHECKPOINTS, EVENTS, LOG, PIECE_BYTES, RESULTS, Alive
from peft_studio.remote.courier import Courier
from peft_studio.run_dir import RunDir

_ALIVE_SECONDS = 5.0
_QUICK_SECONDS = 5.0  # what is sent between two looks at the trainer is given up soon, and sent the next time


class _Progress(BaseModel):
    best_step: int = 0


class Outbox:
    """Sends a run directory's news; each piece is named by its place, so that sending it twice does no harm."""

    def __init__(self, run: RunDir, courier: Courier, folder: Path, machine_id: str = ""):
        self._run, self._courier, self._machine_id = run, courier, machine_id
        self._began, self._alive_at, self._beat = time.monotonic(), -_ALIVE_SECONDS, 0
        self._sent = {EVENTS: 0, LOG: 0}
        self._layout = (run.path / LAYOUT).read_bytes() if (run.path / LAYOUT).is_file() else b""
        self._checkpoints = CheckpointSender(run, courier, folder)
        self.events_bytes = 0

    def push(self) -> None:
        """Send what is new, as far as the studio can be reached; never for long."""
        with suppress(Unreachable):
            self._push_lines(self._run.events_path, EVENTS, _QUICK_SECONDS)
            self._push_lines(self._run.log, LOG, _QUICK_SECONDS)
            self._push_layout(_QUICK_SECONDS)
            if time.monotonic() - self._alive_at >= _ALIVE_SECONDS:
                self._alive()
        self._checkpoints.look()

    def finish(self, patience: float) -> None:
        """Send all that is left, the adapter and what was measured included; raises ``Unreachable``."""
        self._checkpoints.finish(patience)
        for file in sorted(path for path in self._run.adapter.rglob("*") if path.is_file()):
            self._courier.send(f"{ADAPTER}/{file.relative_to(self._run.adapter)}", file, patience)
        for name in RESULTS:
            if (file := self._run.path / name).is_file():
                self._courier.send(name, file, patience)
        self._push_layout(patience)
        self._push_lines(self._run.log, LOG, patience)
        self._push_lines(self._run.events_path, EVENTS, patience)
        self.events_bytes = self._sent[EVENTS]

    def _push_lines(self, file: Path, folder: str, patience: float) -> None:
        """Send the whole lines that came since the last time, as pieces named by where they begin."""
        while True:
            with suppress(FileNotFoundError), file.open("rb") as lines:
                lines.seek(self._sent[folder])
                data = lines.read(PIECE_BYTES)
                data = data[: data.rfind(b"\n") + 1] or (data if len(data) == PIECE_BYTES else b"")
                if data:
                    self._courier.send(f"{folder}/{self._sent[folder]:015d}", data, patience)
                    self._sent[folder] += len(data)
                    continue
            return

    def _push_layout(self, patience: float) -> None:
        file = self._run.path / LAYOUT
        if file.is_file() and (layout := file.read_bytes()) != self._layout:
            self._courier.send(LAYOUT, layout, patience)
            self._layout = layout

    def _alive(self) -> None:
        self._beat += 1
        seconds = time.monotonic() - self._began
        alive = Alive(beat=self._beat, seconds=seconds, machine_id=self._machine_id)
        self._courier.send(ALIVE, alive.model_dump_json().encode(), _QUICK_SECONDS)
        self._alive_at = time.monotonic()


class CheckpointSender:
    """
    Sends checkpoints in a thread of its own, since they may be large.

    The trainer deletes old ones as it goes on, so each is first held on to by hard links. Its manifest is sent last.
    """

    def __init__(self, run: RunDir, courier: Courier, folder: Path):
        self._run, self._courier, self._folder = run, courier, folder
        self._sent: set[int] = set()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def look(self) -> None:
        """Begin to send the newest checkpoint, unless another is still on its way."""
        if (self._thread is None or not self._thread.is_alive()) and (steps := self._unsent()):
            held = [held for step in steps if (held := self._hold(step))]
            self._thread = threading.Thread(target=self._send_all, args=(held,), name="checkpoints", daemon=True)
            self._thread.start()

    def finish(self, patience: float) -> None:
        """Wait until the newest has been sent; raises what kept it from that."""
        deadline = time.monotonic() + patience
        for _ in range(2):  # the one on its way, then the one behind it
            if self._thread:
                self._thread.join(max(0.0, deadline - time.monotonic()))
            self.look()
        if self._thread:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._unsent() and self._error:
            raise self._error

    def _unsent(self) -> list[int]:
        """Return the newest step, and the best one that it speaks of, as far as they were not sent."""
        found = [int(path.name[5:]) for path in self._run.checkpoints.glob("step-*") if path.name[5:].isdigit()]
        if not found:
            return []
        newest = max(found)
        with suppress(OSError, ValidationError):
            text = (self._run.checkpoints / f"step-{newest}" / "progress.json").read_bytes()
            best = _Progress.model_validate_json(text).best_step
            return [step for step in dict.fromkeys((best, newest)) if step in found and step not in self._sent]
        return []

    def _hold(self, step: int) -> Path | None:
        source, held = self._run.checkpoints / f"step-{step}", self._folder / f"step-{step}"
        shutil.rmtree(held, ignore_errors=True)
        held.mkdir(parents=True)
        try:
            for file in source.iterdir():
                os.link(file, held / file.name)
        except FileNotFoundError:  # deleted just now: a newer one is there
            return None
        return held if (held / "manifest.json").is_file() else None

    def _send_all(self, held: list[Path]) -> None:
        for folder in held:
            try:
                for file in sorted(folder.iterdir(), key=lambda file: file.name == "manifest.json"):
                    self._courier.send(f"{CHECKPOINTS}/{folder.name}/{file.name}", file)
                self._sent.add(int(folder.name[5:]))
            except Exception as error:  # it is sent the next time, or waited for in the end
                self._error = error
                return
            finally:
                shutil.rmtree(folder, ignore_errors=True)
