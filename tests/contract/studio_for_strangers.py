"""
A studio for requests that nobody wrote: a bit of everything is there, and outside services are near.

    python -m tests.contract.studio_for_strangers     # tells where it is, and serves until its input ends
"""

import json
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from api.app import create_app
from api.dependencies import RunsOfAdapters
from api.request_protocol import RequestProtocol
from infra.adapters.runs import RunsInMemory
from infra.api_keys import ApiKey
from infra.credentials import CredentialsInMemory
from infra.deploying.runs import DeployRunsInMemory
from infra.exports.runs import ExportRunsInMemory
from infra.serving.records import Deployment, DeploymentsInMemory
from infra.settings import Settings
from infra.simulators.accounts import create_accounts, platform_urls
from infra.simulators.grpc import HttpOrGrpc
from infra.simulators.sources import Repositories, Trouble, create_civitai, create_hub, create_ollama
from peft_studio.deployments import DeploymentStatus
from peft_studio.events import Event, Log, Metrics
from peft_studio.jobs import JobStatus, Phase
from tests.integration.api.coordination_in_memory import coordination_in_memory
from tests.integration.api.machines import made
from tests.integration.api.studio_in_memory import START, BudgetsInMemory, JobsInMemory, KeysInMemory, MachinesInMemory
from tests.loopback import on_loopback
from tests.measured_machine import measured
from tests.model_folders import write_model

KEY = "rules"  # of an admin: every route is open to it


class JobsSoFar(JobsInMemory):
    """Jobs of which nobody waits for more than there is, so that a stream of their events comes to its end."""

    async def follow(self, job_id: str, after: str | None = None) -> AsyncIterator[tuple[str, Event]]:
        await self.get(job_id)
        for seq, event in enumerate(self.events[job_id], 1):
            if seq > int(after or 0):
                yield str(seq), event


class KeysButTheStrangers(KeysInMemory):
    """Keys that anyone may revoke; the one in use is not listed, because nothing would be answered without it."""

    async def list(self) -> Sequence[ApiKey]:
        return [key for secret, key in self.known.items() if secret != KEY]


@contextmanager
def studio_for_strangers() -> Iterator[str]:
    """Serve it for as long as the block lasts; yields its address."""
    with tempfile.TemporaryDirectory() as folder, _outside(Path(folder)) as urls:
        data_dir = Path(folder) / "data"
        measured(data_dir)
        unlimited = dict.fromkeys(("requests_per_minute", "wrong_keys_per_minute", "connections_per_key"), 1_000_000)
        settings = Settings.model_validate({"data_dir": data_dir, "platform_urls": urls, **unlimited})
        jobs, deployments = JobsSoFar(), DeploymentsInMemory()
        _furnish(jobs, deployments, data_dir)
        app = create_app(
            jobs,
            KeysButTheStrangers(),
            settings,
            deployments,
            jobs,
            CredentialsInMemory(),
            BudgetsInMemory(),
            MachinesInMemory(),
            coordination_in_memory(),
            RunsOfAdapters(ExportRunsInMemory(), DeployRunsInMemory(), RunsInMemory(), jobs),
        )
        with on_loopback(app, http=RequestProtocol) as url:
            _upload_some(url)
            yield url


@contextmanager
def _outside(folder: Path) -> Iterator[dict[str, str]]:
    """Serve simulated platforms, and sources of models, one of which has a small one; yields where each is."""
    hub = create_hub(Repositories({"org/model": write_model(folder / "hub", vocab_size=50)}), Trouble())
    with (
        on_loopback(create_accounts(), http=HttpOrGrpc) as accounts,
        on_loopback(hub) as huggingface,
        on_loopback(create_civitai(Trouble())) as civitai,
        on_loopback(create_ollama(Trouble())) as ollama,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("HF_ENDPOINT", huggingface)
        environment.setenv("HF_HUB_CACHE", str(folder / "cache"))
        yield platform_urls(accounts) | {"huggingface": huggingface, "civitai": civitai, "ollama": ollama}


def _furnish(jobs: JobsInMemory, deployments: DeploymentsInMemory, data_dir: Path) -> None:
    for number in range(5):
        job = made(jobs, data_dir, project_name=f"project {number}")
        jobs.say(Metrics(job_id=job.job_id, metrics={"step": 1, "epoch": 0.5, "loss": 2.0}))
        jobs.say(Log(job_id=job.job_id, message="Zoë says: done, 完成"))
        jobs.add(status=JobStatus.FAILED, phase=Phase.DONE, error={"code": "TRAINING_FAILED", "message": "Failed."})
        jobs.add(status=JobStatus.PENDING, phase=Phase.PAUSED)
        training = {"step": 3.0, "epoch": 1.5, "loss": 0.5}
        jobs.add(status=JobStatus.RUNNING, phase=Phase.TRAINING, metrics=training, started_at=START)
    served = Deployment(
        deployment_id="deploy_" + "0f" * 16,
        adapter_id="adapter_" + "0f" * 16,
        adapter="/path/to/adapter",
        base_model="org/model",
        chat=True,
        status=DeploymentStatus.FAILED,
    )
    anyio.run(deployments.add, served)


def _upload_some(url: str) -> None:
    for number in range(5):
        rows = json.dumps({"prompt": "Hello", "completion": f"{number}"}).encode()
        key = {"Authorization": f"Bearer {KEY}"}
        httpx.post(f"{url}/api/v1/datasets?name={number}.jsonl", content=rows, headers=key).raise_for_status()


if __name__ == "__main__":
    with studio_for_strangers() as address:
        told: dict[str, Any] = {"url": address, "key": KEY}
        print(json.dumps(told), flush=True)
        sys.stdin.read()
