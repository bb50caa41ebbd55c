"""What a studio finds on its disk: adapters that were made."""

import json
from pathlib import Path
from typing import Any

from infra.adapters.store import WEIGHTS
from peft_studio.config import TrainingConfig
from peft_studio.jobs import Artifact, Job, JobStatus
from tests.integration.api.studio_in_memory import CONFIG, START, JobsInMemory


def made(jobs: JobsInMemory, data_dir: Path, **config: Any) -> Job:
    """A completed job, with its adapter in the store."""
    job = jobs.add(config=TrainingConfig.model_validate(CONFIG | config), status=JobStatus.COMPLETED)
    folder = data_dir / "adapters" / job.job_id
    folder.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(b"weights")
    (folder / "adapter_config.json").write_text(json.dumps({"target_modules": ["v_proj", "q_proj"]}))
    changes = {
        "artifact": Artifact(path=str(folder / WEIGHTS), size_bytes=7, hash="sha256:0"),
        "completed_at": START,
    }
    jobs.jobs[job.job_id] = job.model_copy(update=changes)
    return jobs.jobs[job.job_id]
