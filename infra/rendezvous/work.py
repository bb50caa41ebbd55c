"""The work that is left at a machine's door: which files it needs, and by when it is to be done."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr, ValidationError

from infra.rendezvous.bucket import BucketDoor
from infra.rendezvous.door import CallbackDoor
from infra.rendezvous.mirror import newest_first
from infra.settings import Settings
from peft_studio import oom_ladder
from peft_studio.dataset_sources import is_hub_id, open_file
from peft_studio.errors import ResourceUnavailable
from peft_studio.plan import Plan
from peft_studio.remote.assignment import ALIVE, END, Alive, Assignment, Upload
from peft_studio.run_dir import RunDir

Door = CallbackDoor | BucketDoor
MODEL, DATA = "model", "data"
_COPY = "dataset"
_OF_A_MODEL = (".json", ".safetensors", ".jinja", ".model", ".txt", ".tiktoken")


@dataclass(frozen=True)
class Terms:
    """For how long a machine works."""

    boot_seconds: float  # within which it must have claimed its work
    deadline_seconds: float


def door_of(settings: Settings, machine: str) -> Door:
    """Return a machine's door: in the bucket where there is one, else at the studio's own address."""
    return BucketDoor(settings, machine) if settings.bucket else CallbackDoor(settings, machine)


@dataclass(frozen=True)
class Heard:
    """What a machine that has come to its door has said there."""

    machine_id: str  # what its vendor calls it; its own word, so good for questions alone
    has_ended: bool  # all that its work came to has been sent


def heard_of(settings: Settings, machine: str) -> Heard | None:
    """Return what a machine has said, which may be gone by now; None where it has never come to its door."""
    door = door_of(settings, machine)
    if not door.is_claimed:
        return None
    alive, there = Alive(beat=0, seconds=0), door.box.contents()
    with suppress(ValidationError):
        if ALIVE in there and (content := door.box.read(ALIVE, there[ALIVE].size)):
            alive = Alive.model_validate_json(content)
    return Heard(alive.machine_id, END in there)


def leave_work(plan: Plan, machine: str, terms: Terms, settings: Settings, hub: Mapping[str, SecretStr]) -> str:
    """Leave a job's work at a machine's door; return the address that it is claimed at."""
    door = door_of(settings, machine)
    assignment = Assignment(
        job_id=door.run.job_id,
        machine=machine,
        inputs=[],
        orders_url="",
        upload=Upload(url=""),
        deadline_seconds=terms.deadline_seconds,
        checkpoint_seconds=60 * settings.checkpoint_minutes,
        silence_seconds=60 * settings.silence_minutes,
        stop_seconds=settings.stop_seconds,
        model=MODEL if plan.model.path else None,
        data=DATA + _suffix(plan) if not is_hub_id(plan.dataset.path) else None,
    )
    files = files_for(plan, door.run, door.run.path / "machines" / machine)
    if isinstance(door, BucketDoor):
        return door.open(assignment, files, terms.boot_seconds, hub)
    return door.open(assignment, files, terms.boot_seconds)


def forget_work(settings: Settings, machine: str) -> None:
    """Remove what lies at a machine's door, now that it is gone; what a bucket that is away holds stays there."""
    door = door_of(settings, machine)
    for copy in (door.run.path / "machines" / machine).glob(f"{_COPY}.*"):
        copy.unlink(missing_ok=True)
    with suppress(ResourceUnavailable):
        door.forget()


def files_for(plan: Plan, run: RunDir, folder: Path) -> dict[str, Path]:
    """Return the files that a machine needs, by where they belong on it: job, newest checkpoints, model, data."""
    at = f"run/{run.job_id}"
    names = ("config.json", "plan.json", oom_ladder.FILE)
    files = {f"{at}/{name}": run.path / name for name in names if (run.path / name).is_file()}
    for checkpoint in newest_first(run)[:2]:  # the one before it, in case that one is damaged
        files |= {f"{at}/checkpoints/{checkpoint.name}/{file.name}": file for file in checkpoint.iterdir()}
    if plan.model.path:
        model = sorted(file for file in Path(plan.model.path).iterdir() if file.suffix in _OF_A_MODEL)
        files |= {f"{MODEL}/{file.name}": file for file in model}
    if not is_hub_id(plan.dataset.path):
        files[DATA + _suffix(plan)] = _here(plan.dataset.path, folder)
    return files


def _here(path: str, folder: Path) -> Path:
    """Return a data set as a file of this machine's; one in an object store is fetched first."""
    if "://" not in path:
        return Path(path)
    copy = folder / f"{_COPY}{Path(path).suffix}"
    copy.parent.mkdir(parents=True, exist_ok=True)
    with open_file(path) as source, copy.open("wb") as target:
        shutil.copyfileobj(source, target)
    return copy


def _suffix(plan: Plan) -> str:
    return Path(plan.dataset.path).suffix
