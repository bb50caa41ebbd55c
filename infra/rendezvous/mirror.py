"""Takes what a machine has sent into the job's run directory, where everything else looks for it."""

import shutil
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ValidationError

from infra.rendezvous.mailbox import Mailbox
from peft_studio.events import parse_event
from peft_studio.oom_ladder import FILE as LAYOUT
from peft_studio.remote.assignment import ADAPTER, CHECKPOINTS, END, EVENTS, LOG, RESULTS, End
from peft_studio.run_dir import RunDir, make_durable

KEPT = 2
_TAIL_BYTES = 1 << 20


class _Taken(BaseModel):
    """How much of what grows has been taken so far."""

    events: int = 0
    log: int = 0


class _Progress(BaseModel):
    best_step: int = 0


class Mirror:
    """One machine's mailbox, and the run directory that its content is taken into. One process at a time uses it."""

    def __init__(self, mailbox: Mailbox, run: RunDir, machine: str):
        self._mailbox, self._run = mailbox, run
        self._notes = f"machines/{machine}/taken.json"
        self._taken = run.read(self._notes, _Taken) or _Taken()
        self._may_repeat = True  # what an earlier process took just before it was killed

    def pull(self) -> None:
        """Take the events, lines and whole checkpoints that have come since the last time."""
        before = self._taken.model_copy()
        self._take_events()
        self._take_log()
        for name in self._mailbox.names(CHECKPOINTS):
            self._take_checkpoint(name)
        with suppress(FileNotFoundError):
            self._mailbox.take(LAYOUT, self._run.path / LAYOUT)
            self._mailbox.remove(LAYOUT)
        if self._taken != before:
            self._run.write(self._notes, self._taken)
            self._clear(EVENTS, self._taken.events)
            self._clear(LOG, self._taken.log)

    def end(self) -> End | None:
        """Return how the work ended, once it has and all of its events are here; takes its results over."""
        if (content := self._mailbox.read(END)) is None:
            return None
        end = End.model_validate_json(content)
        self.pull()
        if self._taken.events < end.events_bytes:
            return None
        self._take_adapter()
        for name in RESULTS:
            with suppress(FileNotFoundError):
                self._mailbox.take(name, self._run.path / name)
        return end

    def _take_events(self) -> None:
        for data in self._pieces(EVENTS, self._taken.events):
            lines = data.splitlines()
            known = self._last_lines() if self._may_repeat else frozenset[bytes]()
            self._may_repeat = False
            for line in lines:
                if line not in known:
                    with suppress(ValidationError):  # a machine's torn line is nobody's event
                        self._run.append(parse_event(line).model_copy(update={"job_id": self._run.job_id}))
            self._taken.events += len(data)

    def _take_log(self) -> None:
        for data in self._pieces(LOG, self._taken.log):
            with self._run.log.open("ab") as log:
                log.write(data)
            self._taken.log += len(data)

    def _pieces(self, folder: str, begin: int) -> list[bytes]:
        """Return the pieces that follow one another from a place on; each is named by its own."""
        pieces: list[bytes] = []
        for name in self._mailbox.names(folder):
            if name.isdigit() and int(name) == begin and (data := self._mailbox.read(f"{folder}/{name}")) is not None:
                pieces.append(data)
                begin += len(data)
        return pieces

    def _clear(self, folder: str, taken: int) -> None:
        for name in self._mailbox.names(folder):
            if name.isdigit() and int(name) < taken:
                self._mailbox.remove(f"{folder}/{name}")

    def _last_lines(self) -> frozenset[bytes]:
        with suppress(FileNotFoundError), self._run.events_path.open("rb") as file:
            file.seek(max(0, self._run.events_path.stat().st_size - _TAIL_BYTES))
            return frozenset(file.read().splitlines())
        return frozenset()

    def _take_checkpoint(self, name: str) -> None:
        """Move a whole checkpoint into its place, and delete all but the newest and the best."""
        files, final = self._mailbox.names(f"{CHECKPOINTS}/{name}"), self._run.checkpoints / name
        if "manifest.json" not in files or not name.removeprefix("step-").isdigit():
            return
        temporary = self._run.checkpoints / f".{name}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for file in files:
            self._mailbox.take(f"{CHECKPOINTS}/{name}/{file}", temporary / file)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        (final / "manifest.json").touch()  # it is here from now on, by this clock
        make_durable(self._run.checkpoints)
        self._mailbox.remove(f"{CHECKPOINTS}/{name}")
        self._prune()

    def _prune(self) -> None:
        folders = newest_first(self._run)
        for folder in folders[KEPT:]:
            if folder.name != f"step-{_best_of(folders[0])}":
                shutil.rmtree(folder, ignore_errors=True)

    def _take_adapter(self) -> None:
        names = self._mailbox.names(ADAPTER)
        if not names:
            return
        temporary = self._run.path / ".adapter"
        shutil.rmtree(temporary, ignore_errors=True)
        for name in names:
            self._mailbox.take(f"{ADAPTER}/{name}", temporary / name)
        shutil.rmtree(self._run.adapter, ignore_errors=True)
        temporary.rename(self._run.adapter)


def newest_first(run: RunDir) -> list[Path]:
    """Return a run's checkpoints."""
    numbered = [path for path in run.checkpoints.glob("step-*") if path.name.removeprefix("step-").isdigit()]
    return sorted(numbered, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def _best_of(checkpoint: Path) -> int:
    with suppress(OSError, ValidationError):
        return _Progress.model_validate_json((checkpoint / "progress.json").read_bytes()).best_step
    return 0
