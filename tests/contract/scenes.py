"""For each example of the API's document, a studio in which its request has the answer that was promised."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio

from infra.serving.records import Deployment, Deployments
from infra.simulators.accounts import GOOD
from peft_studio.config import TrainingConfig
from peft_studio.deployments import DeploymentStatus
from peft_studio.events import Log
from peft_studio.experiments import experiment_id_of
from peft_studio.jobs import Artifact, Job, JobStatus, Phase
from peft_studio.machine import Gpu
from tests.adapter_files import weights
from tests.contract.promises import PROMISES
from tests.integration.api.fixtures import Client
from tests.integration.api.machines import made
from tests.integration.api.studio_in_memory import START, JobsInMemory
from tests.measured_machine import measured
from tests.model_folders import write_model

REQUEST: dict[str, Any] = next(promise for promise in PROMISES if promise.title == "Create Training Job").body["config"]
CONFIG = TrainingConfig.model_validate(REQUEST)
ADAPTER, DEPLOYMENT = "adapter_" + "0f" * 16, "deploy_" + "0f" * 16
Names = dict[str, Any]


@dataclass(frozen=True)
class Backstage:
    """What stands before and behind the API: a client of it, jobs, deployments, a data directory, and an endpoint."""

    client: Client
    jobs: JobsInMemory
    deployments: Deployments
    data_dir: Path
    endpoint: Callable[[str], str]


def running(jobs: JobsInMemory) -> Job:
    job = jobs.add(
        config=CONFIG,
        metrics={"loss": 0.523, "learning_rate": 0.0002, "epoch": 1.5},
        status=JobStatus.RUNNING,
        phase=Phase.TRAINING,
        progress=0.45,
        started_at=START,
    )
    for line in ("Starting training...", "Epoch 1/3, Step 10/1000, Loss: 0.523"):
        jobs.say(Log(job_id=job.job_id, message=line))
    return job


def completed(jobs: JobsInMemory, cost: float = 2.45, **metrics: float) -> Job:
    return jobs.add(
        config=CONFIG,
        metrics={"final_loss": 0.234, "best_loss": 0.221, "accuracy": 0.89, "total_steps": 1000, **metrics},
        status=JobStatus.COMPLETED,
        phase=Phase.DONE,
        progress=1.0,
        started_at=START,
        completed_at=START + timedelta(seconds=2640),
        duration_seconds=2640.0,
        cost=cost,
        artifact=Artifact(path="/path/to/adapter.safetensors", size_bytes=16777216, hash="sha256:abc123"),
    )


def _a_key_that_is_good(_: Backstage) -> Names:
    return {"platform_name": "runpod", "your_api_key_here": GOOD}


def _a_connected_platform(studio: Backstage) -> Names:
    studio.client.post("/api/v1/platforms/runpod/connect", json={"credentials": {"api_key": GOOD}})
    return {"platform_name": "runpod"}


def _nothing(_: Backstage) -> Names:
    return {}


def _a_model_on_a_hub(_: Backstage) -> Names:
    return {"query": "llama", "source": "huggingface", "limit": "5", "model_id": "meta-llama/Llama-2-7b-hf"}


def _some_running_jobs(studio: Backstage) -> Names:
    running(studio.jobs)
    return {"status": "running", "provider": "runpod", "limit": "5"}


def _a_completed_job(studio: Backstage) -> Names:
    return {"job_id": completed(studio.jobs).job_id}


def _a_running_job(studio: Backstage) -> Names:
    return {"job_id": running(studio.jobs).job_id, "lines": "2"}


def _a_machine(studio: Backstage) -> Names:
    measured(studio.data_dir, Gpu(name="RTX 4090", vram_gb=24))
    return {"provider": "local", "resource_id": "local", "available": "true"}


def _an_adapter(studio: Backstage) -> Names:
    return {"job_id": made(studio.jobs, studio.data_dir, **REQUEST).job_id, "limit": "5"}


def _some_experiments(studio: Backstage) -> Names:
    completed(studio.jobs)
    return {"tracker": "local", "project": REQUEST["project_name"]}


def _two_experiments(studio: Backstage) -> Names:
    first, second = completed(studio.jobs), completed(studio.jobs, cost=3.20, final_loss=0.256, accuracy=0.87)
    return {"exp_ghi789": experiment_id_of(first.job_id), "exp_jkl012": experiment_id_of(second.job_id)}


def _an_adapters_file(_: Backstage) -> Names:
    metadata = {"base_model": "org/model", "algorithm": "lora", "rank": 2}
    return {"file": ("adapter.safetensors", weights()), "metadata": (None, json.dumps(metadata))}


def _an_uploaded_adapter(studio: Backstage) -> Names:
    """One to be deployed here: on this machine, which is one replica and cannot become more."""
    model = write_model(studio.data_dir / "model")
    form = {"file": weights(), "metadata": (None, json.dumps({"base_model": str(model)}))}
    uploaded = studio.client.post("/api/v1/adapters/upload", files=form).json()
    here = {"platform": "local", "instance_type": "local", "max_replicas": 1, "auto_scaling": False}
    return {"adapter_id": uploaded["adapter_id"], **here}


def _a_running_deployment(studio: Backstage) -> Names:
    """One that has answered within the last minute: without any requests nothing is known of latency."""
    deployment = Deployment(
        deployment_id=DEPLOYMENT,
        adapter_id=ADAPTER,
        adapter="/path/to/adapter",
        base_model="org/model",
        chat=True,
        status=DeploymentStatus.RUNNING,
        endpoint=studio.endpoint(DEPLOYMENT),
    )
    anyio.run(studio.deployments.add, deployment)
    asked = {"prompt": "the cat", "max_tokens": 1}
    studio.client.post(f"/api/v1/deployments/{DEPLOYMENT}/test", json=asked).raise_for_status()
    return {"deployment_id": DEPLOYMENT, "status": "running"}


# By the example's heading. A scene returns what stands in the request in place of the document's names and values.
SCENES: dict[str, Callable[[Backstage], Names]] = {
    "List Platforms": _a_connected_platform,
    "Connect Platform": _a_key_that_is_good,
    "Disconnect Platform": _a_connected_platform,
    "Search Models": _a_model_on_a_hub,
    "Get Model Details": _a_model_on_a_hub,
    "Create Training Job": _nothing,
    "List Jobs": _some_running_jobs,
    "Get Job Details": _a_completed_job,
    "Cancel Job": _a_running_job,
    "Get Job Logs": _a_running_job,
    "List Resources": _a_machine,
    "Get Resource Pricing": _a_machine,
    "List Adapters": _an_adapter,
    "Upload Adapter": _an_adapters_file,
    "Create Deployment": _an_uploaded_adapter,
    "List Deployments": _a_running_deployment,
    "Test Deployment": _a_running_deployment,
    "List Experiments": _some_experiments,
    "Compare Experiments": _two_experiments,
}
