"""
RunDir: the one place a job's work lives on disk, and all that the trainer is given.

    config.json          the TrainingConfig
    plan.json            what validation pinned down: model revision, hash of the data (optional)
    events.jsonl         what happened, one event a line, appended to by trainer and flow
    checkpoints/step-N/  complete only when its manifest.json is there
    adapter/             the finished PEFT adapter
    summary.json         TrainingSummary, written when the adapter is whole
    evaluation.json      Evaluation
    failure.json         the Failure that ended the last attempt
    requests/            what the running job is asked for (Request), each a file that is removed once it is done
    trainer.log          the trainer's standard output and error

An event's sequence number is its line number, starting at 1: readers resume from it, and no writer has to
agree with another on a counter. Writers append whole lines, one at a time.
"""

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from peft_studio.config import TrainingConfig
from peft_studio.events import Event, Failure, Metrics, Status, now, parse_event
from peft_studio.jobs import Evaluation, JobStatus, Phase, TrainingSummary

M = TypeVar("M", bound=BaseModel)


class Request(StrEnum):
    """What a job can be asked for while it runs."""

    PAUSE = "pause"
    CHECKPOINT = "checkpoint"


_TAIL_BYTES = 1 << 16


class RunDir:
    """A run directory, given as a path or a ``file://`` URL."""

    def __init__(self, location: str | Path):
        self.path = Path(str(location).removeprefix("file://"))

    @property
    def job_id(self) -> str:
        """The directory's name is the job's id."""
        return self.path.name

    @property
    def events_path(self) -> Path:
        """The file of events."""
        return self.path / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The folder of the finished adapter."""
        return self.path / "adapter"

    @property
    def log(self) -> Path:
        """The file that holds what the trainer printed."""
        return self.path / "trainer.log"

    def read_config(self) -> TrainingConfig:
        """Read the job's configuration; raises ``FileNotFoundError`` where there is none."""
        return TrainingConfig.model_validate_json((self.path / "config.json").read_bytes())

    def write(self, name: str, value: BaseModel) -> None:
        """Put a JSON document in place whole: a reader sees the old one or the new one."""
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.path / name, value.model_dump_json(indent=2).encode())

    def read(self, name: str, kind: type[M]) -> M | None:
        """Read a JSON document, or None where it is not there (yet)."""
        try:
            return kind.model_validate_json((self.path / name).read_bytes())
        except FileNotFoundError:
            return None

    def read_summary(self) -> TrainingSummary | None:
        """What the trainer did, once it is done."""
        return self.read("summary.json", TrainingSummary)

    def read_evaluation(self) -> Evaluation | None:
        """What the adapter is worth, once it is known."""
        return self.read("evaluation.json", Evaluation)

    def read_failure(self) -> Failure | None:
        """Why the last attempt ended, where it ended by itself."""
        return self.read("failure.json", Failure)

    def ask(self, request: Request) -> datetime:
        """Ask the running job for something; return the time of it, by the clock of files."""
        file = self.path / "requests" / request
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        with suppress(FileNotFoundError):  # done already
            return datetime.fromtimestamp(file.stat().st_mtime, UTC)
        return now()

    def is_asked(self, request: Request) -> bool:
        """Tell whether something is asked for: one look at the disk, so that it can be done between any two steps."""
        return (self.path / "requests" / request).exists()

    def ask_time(self, request: Request) -> float:
        """When something was asked for, by the clock of files (seconds); 0 where it is not."""
        with suppress(FileNotFoundError):
            return (self.path / "requests" / request).stat().st_mtime
        return 0.0

    def withdraw(self, *requests: Request) -> None:
        """Ask no longer, because it is done or not wanted any more."""
        for request in requests:
            (self.path / "requests" / request).unlink(missing_ok=True)

    def append(self, event: Event) -> None:
        """Add an event as one line. Writers take turns, because a look at a file may see half of another's write."""
        self.path.mkdir(parents=True, exist_ok=True)
        line = event.model_dump_json(exclude_none=True).encode() + b"\n"
        file = os.open(self.events_path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed, also by a kill
            # A writer that was killed in the middle of a line must not swallow the next one.
            if (size := os.fstat(file).st_size) and os.pread(file, 1, size - 1) != b"\n":
                line = b"\n" + line
            if os.write(file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.events_path))
        finally:
            os.close(file)

    def enter(self, phase: Phase, status: JobStatus = JobStatus.RUNNING) -> None:
        """Note that the job goes on to another phase."""
        self.append(Status(job_id=self.job_id, status=status, phase=phase))

    def events(self, after: int = 0) -> Iterator[tuple[int, Event]]:
        """Every whole event with a sequence number above ``after``."""
        yield from EventReader(self, after).read()

    def latest(self) -> "Latest":
        """Where the job stands, from the last few events: cheap, however long the job is."""
        try:
            with self.events_path.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
                lines = file.read().splitlines()
        except FileNotFoundError:
            return Latest()
        latest = Latest()
        for line in lines:
            with suppress(ValidationError):
                match parse_event(line):
                    case Status(phase=Phase() as phase):
                        latest.phase = phase
                        if phase is Phase.QUEUED:  # it was taken up again after it had failed
                            latest.failure = None
                    case Metrics(metrics=metrics):
                        latest.metrics = metrics if "loss" in metrics else {**latest.metrics, **metrics}
                        latest.phase = latest.phase or Phase.TRAINING  # which began long ago
                    case Failure() as failure:
                        latest.failure = failure.model_dump(mode="json", include={"error", "details", "code"})
                    case _:
                        pass
        return latest


@dataclass
class Latest:
    """A job's last reported phase, metrics and failure."""

    phase: Phase | None = None
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    failure: dict[str, str] | None = None


class EventReader:
    """Reads a run directory's events as they come, each once, from any sequence number on."""

    def __init__(self, run: RunDir, after: int = 0):
        self._path = run.events_path
        self._after = after
        self._offset = 0
        self.seq = 0

    def read(self) -> Iterator[tuple[int, Event]]:
        """What has come since the last call, in order; nothing where the file is not there yet."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
            self._offset += len(line)
            self.seq += 1
            if self.seq <= self._after:
                continue
            try:
                event = parse_event(line)
            except ValidationError:
                continue  # the torn line of a killed writer keeps its number, so that numbers never shift
            yield self.seq, event


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a crash at any moment leaves either the old content or the new."""
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def write_whole(path: Path, fill: Callable[[Path], object]) -> None:
    """Have ``fill`` write a file beside ``path``, make it durable, then move it into place."""
    with _filled(path, fill) as temporary:
        os.replace(temporary, path)


def write_once(path: Path, fill: Callable[[Path], object]) -> None:
    """The same, unless there is such a file by then: of several that write it at once the first one counts."""
    with _filled(path, fill) as temporary, suppress(FileExistsError):
        os.link(temporary, path)


def for_owner(content: str | bytes) -> Callable[[Path], object]:
    """Return what fills a file that its owner alone may read, for the two above."""
    data = content.encode() if isinstance(content, str) else content
    return lambda path: (path.touch(mode=0o600), path.write_bytes(data))


@contextmanager
def _filled(path: Path, fill: Callable[[Path], object]) -> Generator[Path]:
    # Threads write at the same time, too.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        fill(temporary)
        make_durable(temporary)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def make_durable(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
