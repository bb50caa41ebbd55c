"""
Sends jobs' metrics to their trackers, from the events that lie in the run directories.

It runs in the worker's process, beside the jobs: neither a trainer nor a rented machine ever speaks to a tracker. What
a tracker does not take waits, and is sent later, also after the job has ended and after a restart of the studio.
"""

import asyncio
import logging
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import httpx
from prefect.client.orchestration import get_client
from pydantic import ValidationError

from infra.credentials import CredentialsInPrefect, CredentialStore
from infra.settings import Settings
from infra.trackers.destinations import destination_of, python_of, tracker_of
from infra.trackers.endings import Endings, EndingsInPrefect, ending_of
from infra.trackers.rows import Rows
from infra.trackers.sender import Sender
from infra.trackers.waiting import TRACKED, Waiting, read_tracked
from peft_studio.errors import StudioError
from peft_studio.events import Log, LogLevel
from peft_studio.jobs import PREFIX, JobStatus
from peft_studio.run_dir import RunDir
from peft_studio.trackers.contract import Opened, TrackerUnavailable
from peft_studio.tracking import TrackedRun, TrackingState

log = logging.getLogger(__name__)
CHECK_SECONDS = 2.0
IDLE_SECONDS = 120.0  # a job that reports nothing for so long, a paused one say, keeps no process
_AT_ONCE = 16  # senders
_BATCH = 500
_REST_SECONDS = (2.0, 600.0)  # before the first repeat, and at most
Ends = Mapping[str, tuple[JobStatus, datetime]]


async def forward(settings: Settings) -> None:
    """Send for ever; what goes wrong here stays here."""
    async with get_client() as client:
        forwarder = Forwarder(settings, CredentialsInPrefect(), EndingsInPrefect(client))
        try:
            while True:
                try:
                    await forwarder.check()
                except (httpx.HTTPError, StudioError):
                    pass  # the Prefect server is away: what is on its way goes on
                except Exception:
                    log.exception("Looking after the trackers failed.")
                await asyncio.sleep(CHECK_SECONDS)
        finally:
            await forwarder.close()


@dataclass
class _Rest:
    """How long a job's metrics are left alone after a failure, and the size of its events at that time."""

    until: float
    failures: int = 0
    size: int = -1


class Forwarder:
    """Has a sender at work for every job that a tracker waits for."""

    def __init__(
        self,
        settings: Settings,
        credentials: CredentialStore,
        endings: Endings,
        rest: tuple[float, float] = _REST_SECONDS,
    ):
        self._settings = settings
        self._credentials = credentials
        self._endings = endings
        self._waiting = Waiting(settings)
        self._rest = rest
        self._at_work: dict[str, asyncio.Task[None]] = {}
        self._resting: dict[str, _Rest] = {}
        self._ended: Ends = {}

    async def check(self) -> None:
        """Look once which jobs have something to send, and begin with those that nobody is at work on."""
        waiting = await asyncio.to_thread(self._waiting.all)
        self._ended = await self._endings.of(waiting) if waiting else {}
        for job_id, added in waiting.items():
            if job_id in self._at_work or len(self._at_work) >= _AT_ONCE or not self._is_due(job_id):
                continue
            task = self._at_work[job_id] = asyncio.create_task(self._tend(job_id, added))
            task.add_done_callback(lambda _, job_id=job_id: self._at_work.pop(job_id, None))

    async def settle(self) -> None:
        """Wait for the senders that are at work now."""
        await asyncio.gather(*self._at_work.values(), return_exceptions=True)

    async def close(self) -> None:
        """End all senders; what they had not sent is sent by the next forwarder."""
        for task in list(self._at_work.values()):
            task.cancel()
        await self.settle()

    def _is_due(self, job_id: str) -> bool:
        rest = self._resting.get(job_id)
        if rest is None:
            return True
        if rest.failures == 0:  # it was idle
            return job_id in self._ended or _size(self._settings.run_dir(job_id)) != rest.size
        return time.monotonic() >= rest.until

    async def _tend(self, job_id: str, added: int) -> None:
        """Send until the job has ended, nothing comes any more, or the tracker does not take it."""
        run = self._settings.run_dir(job_id)
        try:
            tracker = tracker_of(await asyncio.to_thread(run.read_config))
        except (FileNotFoundError, ValidationError):
            tracker = None
        if tracker is None:  # the run directory is gone, or is not to be sent anywhere
            return self._waiting.remove(job_id)
        try:
            if await self._send(run, tracker):
                self._waiting.remove(job_id, added)
                self._resting.pop(job_id, None)
            else:
                self._resting[job_id] = _Rest(0.0, size=_size(run))
        except TrackerUnavailable as error:
            self._put_off(run, tracker, error)
        except (httpx.HTTPError, StudioError, OSError) as error:
            log.warning("Sending %s failed: %s", job_id, type(error).__name__)
            self._resting[job_id] = self._after_failure(job_id)
        except Exception:
            log.exception("Sending %s failed.", job_id)
            self._resting[job_id] = self._after_failure(job_id)

    async def _send(self, run: RunDir, tracker: str) -> bool:
        """Send what there is and what comes; tell whether the job has ended, and its run there, too."""
        destination = await destination_of(run, tracker, self._settings, self._credentials)
        sender = await Sender.start(tracker, python_of(tracker, self._settings), run.path / "tracking")
        try:
            opened = await sender.open(destination)
            rows = Rows(run, -1 if opened.last_step is None else opened.last_step)
            self._note_opened(run, tracker, opened, offline=destination.offline)
            quiet_since = time.monotonic()
            while True:
                ended = self._ended.get(run.job_id)
                ready = await asyncio.to_thread(rows.take, ended=ended is not None)
                for begin in range(0, len(ready), _BATCH):
                    some = ready[begin : begin + _BATCH]
                    await sender.log(some)
                    rows.sent = some[-1].step
                    self._note(run, last_step=rows.sent)
                    self._resting.pop(run.job_id, None)
                if ended:
                    await sender.finish(ending_of(run, *ended, rows.sent if rows.sent >= 0 else None))
                    break
                quiet_since = time.monotonic() if ready else quiet_since
                if time.monotonic() - quiet_since > IDLE_SECONDS:
                    return False
                sender.check()
                await asyncio.sleep(CHECK_SECONDS / 2)
        finally:
            await sender.close()
        self._note(run, state=TrackingState.OFFLINE if destination.offline else TrackingState.SENT, issue=None)
        if tracker == "wandb" and not destination.offline:  # the server has it all
            await asyncio.to_thread(shutil.rmtree, run.path / "tracking", ignore_errors=True)
        return True

    def _note_opened(self, run: RunDir, tracker: str, opened: Opened, *, offline: bool) -> None:
        """Write down where the run is shown, and say so the first time."""
        before = read_tracked(run)
        tracked = before or TrackedRun(tracker=tracker, run_id=run.job_id.removeprefix(PREFIX))
        state = TrackingState.OFFLINE if offline else TrackingState.SENDING
        found = {"state": state, "issue": None, "url": opened.url or tracked.url, "folder": opened.folder}
        run.write(TRACKED, tracked.model_copy(update=found))
        if before is None or (before.told and before.url is None):
            where = opened.url or opened.folder or tracker
            _say(run, f"Metrics are {'written for' if offline else 'sent to'} {tracker}: {where}")

    def _note(self, run: RunDir, **changes: object) -> None:
        if tracked := read_tracked(run):
            run.write(TRACKED, tracked.model_copy(update=changes))

    def _put_off(self, run: RunDir, tracker: str, error: TrackerUnavailable) -> None:
        """Leave a tracker alone for a while; the job says so the first time."""
        self._resting[run.job_id] = self._after_failure(run.job_id, refused=error.refused)
        before = read_tracked(run)
        tracked = before or TrackedRun(tracker=tracker, run_id=run.job_id.removeprefix(PREFIX))
        waiting = {"state": TrackingState.WAITING, "issue": f"{tracker}: {error}.", "told": True}
        run.write(TRACKED, tracked.model_copy(update=waiting))
        if before is None or not before.told:
            _say(run, f"{tracker} does not take this job's metrics: {error}. They wait and are sent later.", "WARNING")

    def _after_failure(self, job_id: str, *, refused: bool = False) -> _Rest:
        shortest, longest = self._rest
        failures = (rest.failures if (rest := self._resting.get(job_id)) else 0) + 1
        # Credentials that were refused do not get better by being sent again and again.
        wait = min(longest, shortest * 2 ** min(failures + 2 * refused, 20) / 2)
        return _Rest(time.monotonic() + wait, failures)


def _say(run: RunDir, message: str, level: LogLevel = "INFO") -> None:
    run.append(Log(job_id=run.job_id, level=level, message=message))


def _size(run: RunDir) -> int:
    with suppress(FileNotFoundError):
        return run.events_path.stat().st_size
    return -1
