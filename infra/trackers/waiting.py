"""Which jobs have metrics that a tracker does not have yet: a file each, so that a crash forgets none."""

from pathlib import Path

from infra.settings import Settings
from peft_studio.run_dir import RunDir
from peft_studio.tracking import TrackedRun

TRACKED = "tracking.json"


class Waiting:
    """The list of such jobs."""

    def __init__(self, settings: Settings):
        self._folder = settings.data_dir / "trackers" / "waiting"

    def add(self, job_id: str) -> None:
        """Put a job on the list; doing so again tells those at work on it that there is more to come."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file(job_id).touch()

    def all(self) -> dict[str, int]:
        """Return the jobs, each with when it was last added, in nanoseconds of the clock of files."""
        if not self._folder.is_dir():
            return {}
        return {file.name: file.stat().st_mtime_ns for file in self._folder.iterdir()}

    def remove(self, job_id: str, added: int | None = None) -> None:
        """Take a job off the list, unless it was added again since."""
        if added is None or self.all().get(job_id) == added:
            self._file(job_id).unlink(missing_ok=True)

    def _file(self, job_id: str) -> Path:
        return self._folder / job_id


def read_tracked(run: RunDir) -> TrackedRun | None:
    """Read how far a job's metrics have come; None where they go nowhere."""
    return run.read(TRACKED, TrackedRun)
