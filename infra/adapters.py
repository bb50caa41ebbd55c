"""The adapter store on local disk: finished adapters, whole or not there at all."""

import hashlib
import os
import shutil
from pathlib import Path
from uuid import uuid4

from infra.settings import Settings
from peft_studio.adapter_files import WEIGHTS
from peft_studio.config import TrainingConfig
from peft_studio.errors import TrainingFailed
from peft_studio.jobs import Artifact


def store(source: Path, job_id: str, config: TrainingConfig, settings: Settings) -> tuple[str, Artifact]:
    """
    Copy a finished adapter into the store; return its id and its weights' record.

    The id follows from the job's, so that doing it again replaces and never doubles. With ``output_dir`` the
    adapter goes to that folder of the data directory instead, below the job's id: two jobs never overwrite each other.
    """
    if not (source / WEIGHTS).is_file():
        raise TrainingFailed("The trained adapter is gone; submit the job again with force: true.", path=str(source))
    home = settings.data_dir / config.output_dir if config.output_dir else settings.adapters
    target = home / job_id
    temporary = home / f".{job_id}.{uuid4().hex[:8]}"
    home.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(source, temporary)
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return adapter_id_of(job_id), describe(target)


def describe(adapter: Path) -> Artifact:
    """Measure and hash an adapter's weights."""
    weights = adapter / WEIGHTS
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Artifact(path=str(weights), size_bytes=weights.stat().st_size, hash=f"sha256:{digest}")


def adapter_id_of(job_id: str) -> str:
    """Return the id of the adapter that a job makes."""
    return "adapter_" + job_id.removeprefix("job_")
