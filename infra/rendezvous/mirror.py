"""
Takes what a machine has sent into the job's run directory, where everything else looks for it.

A rented machine is somebody else's: what it sends is read as what it should be, or left where it is. The process that
takes it may be killed at any moment, and another goes on: nothing is lost then, and no event is there twice.
"""

import hashlib
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ValidationError

from infra.rendezvous.mailbox import Content, Mailbox
from peft_studio.events import Event, Failure, Metrics, Status, parse_event
from peft_studio.jobs import Evaluation, TrainingSummary
from peft_studio.oom_ladder import FILE as LAYOUT
from peft_studio.oom_ladder import Layout
from peft_studio.remote.assignment import ADAPTER, ALIVE, CHECKPOINTS, END, EVENTS, LOG, PIECE_BYTES, RESULTS, End
from peft_studio.run_dir import RunDir, make_durable, replace_file

KEPT = 2
_TAIL_BYTES = 2 * PIECE_BYTES  # of the events here: a piece of the machine's, and what the flow said meanwhile
_END_SECONDS = 60.0  # in which all events of a machine that has ended must be here
_RESULTS: Mapping[str, type[BaseModel]] = dict(zip(RESULTS, (TrainingSummary, Evaluation, Failure), strict=True))


class _Taken(BaseModel):
    """How much of what grows has been taken so far."""

    events: int = 0
    log: int = 0


class _Progress(BaseModel):
    best_step: int = 0


class _File(BaseModel):
    size: int
    sha256: str


class _Manifest(BaseModel):
    files: dict[str, _File]


class Mirror:
    """One machine's mailbox, and the run directory that its content is taken into. One process at a time uses it."""

    def __init__(self, mailbox: Mailbox, run: RunDir, machine: str):
        self._mailbox, self._run = mailbox, run
        self._notes = f"machines/{machine}/taken.json"
        self._taken = run.read(self._notes, _Taken) or _Taken()
        self._may_repeat = True  # what an earlier process took just before it was killed
        self._ended_at: float | None = None
        self.sign = ""  # the machine's sign of life; a new one is another

    def pull(self) -> End | None:
        """
        Take what has come since the last time; return how the work ended, once all that belongs to it is here.

        May raise ``ResourceUnavailable``; what was not taken is taken the next time.
        """
        there = self._mailbox.contents()
        if END in there:  # it is sent last: now everything is there, which it may not have been a moment ago
            there = self._mailbox.contents()
        self.sign = there[ALIVE].mark if ALIVE in there else self.sign
        self._take_events(there)
        self._take_log(there)
        for name in sorted({path.split("/")[1] for path in there if path.startswith(f"{CHECKPOINTS}/")}):
            self._take_checkpoint(name, _within(f"{CHECKPOINTS}/{name}", there))
        self._take_layout(there)
        return self._take_end(there)

    def _take_end(self, there: Mapping[str, Content]) -> End | None:
        content = self._document(END, there)
        if content is None:
            return None
        try:
            end = End.model_validate_json(content)
        except ValidationError:
            return None
        self._ended_at = self._ended_at or time.monotonic()
        if self._taken.events < end.events_bytes and time.monotonic() - self._ended_at < _END_SECONDS:
            return None
        self._take_adapter(_within(ADAPTER, there))
        for name, kind in _RESULTS.items():
            with suppress(ValidationError):
                if content := self._document(name, there):
                    kind.model_validate_json(content)
                    replace_file(self._run.path / name, content)
        return end

    def _document(self, path: str, there: Mapping[str, Content]) -> bytes | None:
        return self._mailbox.read(path, there[path].size) if path in there and there[path].size else None

    def _take_events(self, there: Mapping[str, Content]) -> None:
        for data in self._pieces(EVENTS, self._taken.events, there):
            known = self._last_lines() if self._may_repeat else frozenset[bytes]()
            self._may_repeat = False
            for line in data.split(b"\n"):
                if (event := self._event(line)) and event.model_dump_json(exclude_none=True).encode() not in known:
                    self._run.append(event)
            self._taken.events += len(data)
            self._run.write(self._notes, self._taken)
        self._clear(EVENTS, self._taken.events, there)

    def _event(self, line: bytes) -> Event | None:
        """Read what a trainer may report, as this job's; None for anything else, a torn line, say."""
        try:
            event = parse_event(line).model_copy(update={"job_id": self._run.job_id, "cursor": None})
        except ValidationError:
            return None
        if isinstance(event, Status) or (isinstance(event, Metrics) and not _is_of_a_step(event)):
            return None
        return event

    def _take_log(self, there: Mapping[str, Content]) -> None:
        for data in self._pieces(LOG, self._taken.log, there):
            with self._run.log.open("ab") as log:
                log.write(data)
            self._taken.log += len(data)
            self._run.write(self._notes, self._taken)
        self._clear(LOG, self._taken.log, there)

    def _pieces(self, folder: str, begin: int, there: Mapping[str, Content]) -> Iterator[bytes]:
        """
        Yield what follows a place, piece by piece; each is named by where it begins.

        A machine that was started anew sends from the beginning, cut elsewhere: what is known of a piece is left out.
        """
        for name, content in sorted(_within(folder, there).items()):
            if int(name) <= begin < int(name) + content.size:
                data = (self._mailbox.read(f"{folder}/{name}", content.size) or b"")[begin - int(name) :]
                if data:
                    yield data
                    begin += len(data)

    def _clear(self, folder: str, taken: int, there: Mapping[str, Content]) -> None:
        old = [name for name, content in _within(folder, there).items() if int(name) + content.size <= taken]
        self._mailbox.remove(f"{folder}/{name}" for name in old)

    def _last_lines(self) -> frozenset[bytes]:
        with suppress(FileNotFoundError), self._run.events_path.open("rb") as file:
            file.seek(max(0, self._run.events_path.stat().st_size - _TAIL_BYTES))
            return frozenset(file.read().splitlines())
        return frozenset()

    def _take_layout(self, there: Mapping[str, Content]) -> None:
        """Note how the machine lays out its steps, if they are the job's steps."""
        if (content := self._document(LAYOUT, there)) is None:
            return
        with suppress(ValidationError):
            layout, config = Layout.model_validate_json(content), self._run.read_config()
            if layout.applied_to(config).effective_batch_size == config.effective_batch_size:
                self._run.write(LAYOUT, layout)
        self._mailbox.remove([LAYOUT])

    def _take_checkpoint(self, name: str, files: Mapping[str, Content]) -> None:
        """Move a whole checkpoint into its place, and delete all but the newest and the best."""
        if "manifest.json" not in files:
            return
        temporary, final = self._run.checkpoints / f".{name}", self._run.checkpoints / name
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            for file in files:
                self._mailbox.take(f"{CHECKPOINTS}/{name}/{file}", temporary / file)
        except FileNotFoundError:
            return
        if _is_whole(temporary):
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
            (final / "manifest.json").touch()  # it is here from now on, by this clock
            make_durable(self._run.checkpoints)
            self._prune()
        shutil.rmtree(temporary, ignore_errors=True)
        self._mailbox.remove(f"{CHECKPOINTS}/{name}/{file}" for file in files)

    def _prune(self) -> None:
        folders = newest_first(self._run)
        for folder in folders[KEPT:]:
            if folder.name != f"step-{_best_of(folders[0])}":
                shutil.rmtree(folder, ignore_errors=True)

    def _take_adapter(self, files: Mapping[str, Content]) -> None:
        if not files:
            return
        temporary = self._run.path / ".adapter"
        shutil.rmtree(temporary, ignore_errors=True)
        for name in files:
            self._mailbox.take(f"{ADAPTER}/{name}", temporary / name)
        shutil.rmtree(self._run.adapter, ignore_errors=True)
        temporary.rename(self._run.adapter)


def newest_first(run: RunDir) -> list[Path]:
    """Return a run's checkpoints."""
    numbered = [path for path in run.checkpoints.glob("step-*") if path.name.removeprefix("step-").isdigit()]
    return sorted(numbered, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def _within(folder: str, there: Mapping[str, Content]) -> dict[str, Content]:
    """Return a folder's files by their names."""
    begin = f"{folder}/"
    return {path.removeprefix(begin): content for path, content in there.items() if path.startswith(begin)}


def _is_of_a_step(event: Metrics) -> bool:
    step = event.metrics.get("step", -1.0)
    return math.isfinite(step) and step >= 0


def _is_whole(checkpoint: Path) -> bool:
    """Whether all of a checkpoint's files are those of its manifest."""
    try:
        files = _Manifest.model_validate_json((checkpoint / "manifest.json").read_bytes()).files
        return {*files, "manifest.json"} == {path.name for path in checkpoint.iterdir()} and all(
            _hash(checkpoint / name) == facts.sha256 for name, facts in files.items()
        )
    except ValidationError:
        return False


def _hash(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _best_of(checkpoint: Path) -> int:
    with suppress(OSError, ValidationError):
        return _Progress.model_validate_json((checkpoint / "progress.json").read_bytes()).best_step
    return 0
