"""What a studio finds on its disk: a machine that was measured, adapters that were made."""

import json
import socket
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from infra.adapters.store import WEIGHTS
from peft_studio.config import Quantization, TrainingConfig
from peft_studio.jobs import Artifact, Job, JobStatus
from peft_studio.machine import Capabilities, Gpu
from tests.integration.api.studio_in_memory import CONFIG, START, JobsInMemory


def measured(data_dir: Path, *gpus: Gpu) -> None:
    machine = Capabilities(
        host=socket.gethostname(),
        torch=installed("torch") or "",
        bitsandbytes=installed("bitsandbytes"),
        torchao=installed("torchao"),
        cpu_cores=16,
        ram_gb=64,
        gpus=list(gpus),
        matmul_gflops=100,
        bf16_gflops=None,
        quantizations={Quantization.NONE: None},
    )
    data_dir.mkdir(parents=True, exist_ok=True)
    (data_dir / "machine.json").write_text(machine.model_dump_json())


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


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
