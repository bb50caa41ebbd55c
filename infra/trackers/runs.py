"""Runs at all connected trackers at once: none that is slow or away keeps the others' answers back."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from infra.credentials import CredentialStore
from infra.platforms.connections import base_url
from infra.platforms.vendors import VENDORS
from infra.settings import Settings
from infra.trackers.readers.base import Found, Points, TrackerReader
from infra.trackers.readers.comet import CometExperiments
from infra.trackers.readers.mlflow import MlflowRuns
from infra.trackers.readers.trackio import TrackioRuns
from infra.trackers.readers.wandb import WandbRuns
from peft_studio.errors import NotFound, PlatformNotConnected, ResourceUnavailable, StudioError
from peft_studio.experiments import Experiment, UnavailableTracker
from peft_studio.jobs import PREFIX

T = TypeVar("T")
log = logging.getLogger(__name__)
READERS: Mapping[str, Callable[[str, Mapping[str, str]], TrackerReader]] = {
    "wandb": WandbRuns,
    "mlflow": MlflowRuns,
    "comet": CometExperiments,
    "trackio": TrackioRuns,
}


@dataclass(frozen=True)
class Answers:
    """Runs that are no jobs here, newest first; ``asked`` are the trackers, ``unavailable`` those that said nothing."""

    runs: list[Experiment]
    asked: list[str]
    unavailable: list[UnavailableTracker]


class TrackerRuns:
    """The trackers that the studio is connected to, as far as they can be read."""

    def __init__(self, credentials: CredentialStore, settings: Settings):
        self._credentials = credentials
        self._settings = settings

    async def list(self, tracker: str | None, project: str | None, limit: int, before: datetime | None) -> Answers:
        """Ask one tracker, or all; each has its own time."""
        connected = await self._credentials.connections()
        names = [name for name in READERS if name in connected and tracker in (None, name)]
        given = await asyncio.gather(*(self._ask(name, project, limit, before) for name in names))
        every = [found for some in given if not isinstance(some, str) for found in some]
        runs = [found.experiment for found in every if not self._is_job(found)]
        runs.sort(key=lambda run: run.created_at, reverse=True)
        unavailable = [
            UnavailableTracker(tracker=name, reason=some)
            for name, some in zip(names, given, strict=True)
            if isinstance(some, str)
        ]
        return Answers(runs, names, unavailable)

    async def get(self, experiment_id: str) -> Experiment:
        """Return one run by its experiment's id; raises ``NotFound``."""
        reader, place = await self._reader_of(experiment_id)
        return (await self._in_time(experiment_id, reader.run(place))).experiment

    async def points(self, experiment_id: str, names: Collection[str]) -> dict[str, Points]:
        """Return a run's metrics by step."""
        reader, place = await self._reader_of(experiment_id)
        return await self._in_time(experiment_id, reader.points(place, list(names)))

    async def _ask(self, name: str, project: str | None, limit: int, before: datetime | None) -> Sequence[Found] | str:
        """Return what a tracker has, or why it has said nothing."""
        try:
            async with asyncio.timeout(self._settings.tracker_seconds):
                return await (await self._reader(name)).runs(project, limit, before)
        except TimeoutError:
            return f"{name} did not answer within {self._settings.tracker_seconds:g} seconds."
        except StudioError as error:
            return error.message
        except Exception:  # one tracker must not take the others' answers along, whatever it sent
            log.exception("The answer of %s was not understood.", name)
            return f"{name} sent an answer that is not understood."

    async def _in_time(self, experiment_id: str, question: Awaitable[T]) -> T:
        tracker = experiment_id.partition(":")[0]
        try:
            async with asyncio.timeout(self._settings.tracker_seconds):
                return await question
        except TimeoutError:
            seconds = f"{self._settings.tracker_seconds:g}"
            message = f"{tracker} did not answer within {seconds} seconds; try again later."
            raise ResourceUnavailable(message, platform=tracker) from None
        except (KeyError, ValueError, TypeError, AttributeError):
            raise ResourceUnavailable(f"{tracker} sent an answer that is not understood.", platform=tracker) from None

    async def _reader_of(self, experiment_id: str) -> tuple[TrackerReader, str]:
        name, _, place = experiment_id.partition(":")
        if name not in READERS or not place:
            raise NotFound(f"There is no experiment {experiment_id[:300]!r}.", experiment_id=experiment_id[:300])
        return await self._reader(name), place

    async def _reader(self, name: str) -> TrackerReader:
        kept = await self._credentials.get(name)
        if kept is None:
            raise PlatformNotConnected(
                f"The platform {name!r} is not connected; connect it first (POST /platforms/{name}/connect).",
                platform=name,
            )
        values = kept.reveal()
        return READERS[name](base_url(VENDORS[name], self._settings, values), values)

    def _is_job(self, found: Found) -> bool:
        """Whether a run is a job of this studio, which its own record shows."""
        own = found.own
        return own is not None and own.isalnum() and self._settings.run_dir(PREFIX + own).path.is_dir()
