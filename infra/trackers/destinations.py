"""Where a job's metrics go: the tracker's address and credentials, and what is told about the job, without secrets."""

import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from infra.credentials import CredentialStore
from infra.platforms.connections import base_url
from infra.platforms.vendors import vendor_named
from infra.settings import Settings
from peft_studio.config import TrainingConfig
from peft_studio.events import Metrics
from peft_studio.experiments import project_of
from peft_studio.jobs import PREFIX, name_of
from peft_studio.run_dir import RunDir
from peft_studio.trackers.contract import Destination, TrackerUnavailable
from peft_studio.trackers.table import LIBRARIES, tracker_named
from peft_studio.tracking import plain_config


def tracker_of(config: TrainingConfig) -> str | None:
    """Return the tracker that a job is sent to, by its own name; None where it is only recorded here."""
    return tracker_named(config.experiment_tracker)


def needs_account(config: TrainingConfig) -> bool:
    """Whether a job's tracker takes nothing before it is connected."""
    tracker = tracker_of(config)
    return tracker not in LIBRARIES or LIBRARIES[tracker].needs_account


def python_of(tracker: str, settings: Settings) -> str:
    """Return the Python that has the tracker's library: this one, unless the operator named another."""
    return str(settings.tracker_pythons.get(tracker, sys.executable))


async def destination_of(run: RunDir, tracker: str, settings: Settings, credentials: CredentialStore) -> Destination:
    """Say where a job goes; raises ``TrackerUnavailable`` where the tracker is not connected any more."""
    config = run.read_config()
    vendor = vendor_named(tracker)
    offline = tracker == "wandb" and config.tracking.mode == "offline"
    kept = None if offline or vendor is None else await credentials.get(tracker)
    if vendor is None or (kept is None and LIBRARIES[tracker].needs_account and not offline):
        raise TrackerUnavailable("it is not connected any more; connect it again", refused=True)
    values = kept.values if kept else {}
    where = base_url(vendor, settings, kept.reveal()) if kept else None
    return Destination(
        run_id=run.job_id.removeprefix(PREFIX),
        name=config.tracking.run_name or name_of(config),
        project=project_of(config),
        entity=config.tracking.entity,
        tags=["peft-studio", *(tag for tag in config.tracking.tags if tag != "peft-studio")],
        config=plain_config(told_of(config)),
        started_at=_begin(run),
        folder=str(_folder(run, tracker, config, settings, here=kept is None)),
        offline=offline,
        url=where,
        credentials=dict(values),
    )


def told_of(config: TrainingConfig) -> dict[str, Any]:
    """Return what a tracker is told of a configuration: all of it, but addresses without passwords and signatures."""
    values = config.model_dump(mode="json", exclude={"tracking"})
    values["quantization"] = str(config.effective_quantization)
    return {name: _bare(value) if isinstance(value, str) else value for name, value in values.items()}


def _bare(value: str) -> str:
    if "://" not in value:
        return value
    parts = urlsplit(value)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _begin(run: RunDir) -> float:
    first = next((event.timestamp.timestamp() for _, event in run.events()), 0.0)
    return next((event.timestamp.timestamp() for _, event in run.events() if isinstance(event, Metrics)), first)


def _folder(run: RunDir, tracker: str, config: TrainingConfig, settings: Settings, *, here: bool) -> Path:
    """Return where the library may write: what is kept lies in the data directory, all else in the run directory."""
    if tracker == "tensorboard":
        project = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in project_of(config))
        return settings.data_dir / "tensorboard" / (project.strip(".") or "project") / run.job_id
    if tracker == "trackio" and here:
        return settings.data_dir / "trackio"
    return run.path / "tracking" / "files"
