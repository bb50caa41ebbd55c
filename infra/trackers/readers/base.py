"""What every tracker can be asked, and how a run that it has is shown."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from infra.vendor_http import Answer, Call, ask
from peft_studio.errors import CredentialRefused, NotFound, ResourceUnavailable
from peft_studio.experiments import SHOWN, Experiment
from peft_studio.jobs import JobStatus

Points = dict[int, float]


@dataclass(frozen=True)
class Found:
    """A run at a tracker; ``own`` is the run id that a studio gave it, where one did."""

    experiment: Experiment
    own: str | None = None


class TrackerReader(Protocol):
    """One tracker with its credentials; everything raises ``ResourceUnavailable`` where it does not answer."""

    async def runs(self, project: str | None, limit: int, before: datetime | None) -> list[Found]:
        """Return the newest runs that began no later than ``before``, of one project or of all."""
        ...

    async def run(self, place: str) -> Found:
        """Return one run, by what its experiment's id says behind the tracker's name; raises ``NotFound``."""
        ...

    async def points(self, place: str, names: Sequence[str]) -> dict[str, Points]:
        """Return a run's metrics by step, as far as it has them."""
        ...


async def answer_of(tracker: str, call: Call, *, missing: bool = False) -> Answer:
    """Ask; raises ``ResourceUnavailable`` for what is of no use. With ``missing``, 400 and 404 are returned."""
    answer = await ask(call)
    if answer.status in (401, 403):
        raise CredentialRefused(
            f"{tracker} refuses the credentials ({answer.status}); connect it again.",
            platform=tracker,
            field="credentials",
        )
    if answer.status == 200 or (missing and answer.status in (400, 404)):
        return answer
    wait = {} if answer.retry_after is None else {"retry_after_seconds": answer.retry_after}
    raise ResourceUnavailable(f"{tracker} answered {answer.status}; try again later.", platform=tracker, **wait)


def no_run(tracker: str, place: str) -> NotFound:
    """Say that there is no such run."""
    name = f"{tracker}:{place}"[:300]
    return NotFound(f"There is no experiment {name!r}.", experiment_id=name)


def foreign(
    tracker: str,
    place: str,
    *,
    project: str,
    name: str,
    status: JobStatus,
    metrics: Mapping[str, Any],
    config: Mapping[str, Any],
    created_at: datetime,
    seconds: float | None = None,
    url: str | None = None,
) -> Experiment:
    """Show a run as an experiment: its numbers as metrics, and no cost, which no tracker knows."""
    numbers = {key: number for key, value in metrics.items() if (number := number_of(value)) is not None}
    return Experiment(
        id=f"{tracker}:{place}",
        tracker=tracker,
        project=project,
        name=name,
        status=status,
        metrics={**dict.fromkeys(SHOWN), **{key.removeprefix("final."): value for key, value in numbers.items()}},
        config=dict(config),
        created_at=created_at,
        job_id=None,
        cost=None,
        duration_seconds=seconds,
        url=url,
    )


def number_of(value: Any) -> float | None:
    """Return a finite number, also one that was sent as text."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def parsed(text: str) -> Any:
    """Return what a text stands for, so that a number that was sent as text compares with a number."""
    try:
        return json.loads(text)
    except ValueError:
        return {"True": True, "False": False, "None": None}.get(text, text)


def of_millis(value: Any) -> datetime:
    """Return a time given in milliseconds since the epoch."""
    return datetime.fromtimestamp(int(value or 0) / 1000, UTC)


def millis(at: datetime) -> int:
    """Return a time in milliseconds since the epoch, no earlier than it is."""
    return math.ceil(at.timestamp() * 1000)
