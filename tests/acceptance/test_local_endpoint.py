"""A job that deploys: its adapter answers at a local endpoint, whatever is killed."""

import asyncio
import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from benchmarks.studio import ROOT, Studio
from infra.embedded.environment import child_environment
from infra.serving.local import LocalDeployments
from infra.settings import Settings
from peft_studio.deployments import DeploymentStatus
from peft_studio.errors import NotFound
from peft_studio.jobs import JobStatus
from tests.acceptance.conftest import eventually, logs
from tests.acceptance.jobs import follow, job, part, processes, run_dir, submit

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
QUESTION = [{"role": "user", "content": "Hi, this is Grace. My pod in Tokyo does not start."}]


class Deployed:
    """A finished job's deployment: where it is, and what it says."""

    def __init__(self, endpoint: str, name: str):
        self.endpoint = endpoint
        self.name = name

    def says(self, model: str | None = None) -> str | None:
        """The greedy answer to one question, None while there is no one to give it."""
        body = {"model": model or self.name, "messages": QUESTION, "temperature": 0, "max_tokens": 24}
        try:
            answer = httpx.post(f"{self.endpoint}/chat/completions", json=body)
        except httpx.TransportError:
            return None
        return answer.json()["choices"][0]["message"]["content"] if answer.is_success else None

    def models(self) -> list[dict[str, Any]]:
        return httpx.get(f"{self.endpoint}/models").json()["data"]

    def processes(self) -> list[psutil.Process]:
        """Who listens there, without those that only stand in for them."""
        return processes(f"--port {httpx.URL(self.endpoint).port}", without="infra.warm")


@pytest.fixture(scope="module")
def deployed(studio: Studio) -> Deployed:
    job_id = submit(studio, deploy={"platform": "local"})
    follow(studio, job_id)
    finished = job(studio, job_id)
    assert finished.status is JobStatus.COMPLETED, logs(studio.data_dir)
    assert finished.endpoint and finished.step_seconds["deploying"] > 0
    return Deployed(finished.endpoint, job_id.replace("job_", "deploy_"))


def http(studio: Studio) -> httpx.Client:
    """A plain client of the studio's API, with a key of its own: its requests are counted apart."""
    headers = {"Authorization": f"Bearer {studio.new_key('endpoints')}"}
    return httpx.Client(base_url=f"{studio.url}/api/v1", headers=headers, timeout=60)


@contextmanager
def prefect_of(studio: Studio) -> Generator[None]:
    """Speak to the studio's Prefect server in this process, as the studio's own processes do."""
    command = part(studio, "prefect.server").cmdline()
    port = int(command[command.index("--port") + 1])
    environment = child_environment(Settings(data_dir=studio.data_dir, prefect_port=port))
    where = {
        PREFECT_API_URL: environment["PREFECT_API_URL"],
        PREFECT_API_AUTH_STRING: environment["PREFECT_API_AUTH_STRING"],
    }
    with temporary_settings(where):
        yield


def test_the_adapter_of_a_job_answers_at_its_endpoint(deployed: Deployed) -> None:
    base, adapter = deployed.models()
    assert (base["id"], adapter["id"], adapter["parent"]) == (str(ROOT / "demo/model"), deployed.name, base["id"])
    assert deployed.says() == deployed.says()
    assert deployed.says() != deployed.says(base["id"])
    assert Path(adapter["root"], "adapter_model.safetensors").is_file()


def test_a_killed_endpoint_is_back_at_its_address_with_its_adapter(deployed: Deployed) -> None:
    said = deployed.says()
    (process,) = deployed.processes()
    process.kill()
    assert eventually(lambda: deployed.says() == said, 60)
    assert process not in deployed.processes()


def test_endpoints_end_with_their_worker_and_come_back_with_the_next(studio: Studio, deployed: Deployed) -> None:
    said = deployed.says()
    (process,) = deployed.processes()
    part(studio, "infra.worker").kill()
    assert eventually(lambda: not process.is_running(), 20)
    assert eventually(lambda: deployed.says() == said, 90), logs(studio.data_dir)


def test_an_adapter_is_uploaded_deployed_prompted_and_deleted_over_http(studio: Studio, deployed: Deployed) -> None:
    job_id = deployed.name.replace("deploy_", "job_")
    made = Path(run_dir(studio, job_id).adapter, "adapter_model.safetensors")
    metadata = json.dumps({"base_model": str(ROOT / "demo/model"), "alpha": 16, "rank": 8})
    with http(studio) as client:
        upload = {"file": made.read_bytes(), "metadata": metadata.encode()}
        adapter_id = client.post("/adapters/upload", files=upload).raise_for_status().json()["adapter_id"]
        body = {"adapter_id": adapter_id, "platform": "local"}
        first, again = (client.post("/deployments", json=body, headers={"Idempotency-Key": "once"}) for _ in range(2))
        deployment_id = first.raise_for_status().json()["deployment_id"]
        assert again.json()["deployment_id"] == deployment_id
        where = f"/deployments/{deployment_id}"
        assert eventually(lambda: client.get(where).json()["status"] == "running", 90), logs(studio.data_dir)

        asked = {"prompt": QUESTION[0]["content"], "max_tokens": 24, "temperature": 0}
        answer = client.post(f"{where}/test", json=asked).raise_for_status().json()
        assert answer["response"] == deployed.says()  # the same weights, whichever way they came
        assert answer["tokens_generated"] > 0 and answer["latency_ms"] > 0
        assert client.get(where).json()["metrics"]["requests_per_minute"] == 1

        assert client.delete(f"/adapters/{adapter_id}").status_code == 409
        assert client.delete(where).status_code == 200
        assert [model["id"] for model in deployed.models()][1:] == [deployed.name]
        assert client.delete(f"/adapters/{adapter_id}").status_code == 200
        assert not (studio.data_dir / "adapters" / adapter_id).exists()


def test_a_deployment_is_a_record_in_prefect_until_it_is_removed(studio: Studio, deployed: Deployed) -> None:
    async def remove() -> None:
        deployments = LocalDeployments()
        (record,) = await deployments.list(DeploymentStatus.RUNNING)
        assert (record.deployment_id, record.endpoint) == (deployed.name, deployed.endpoint)
        answer = await deployments.prompt(record.deployment_id, "Hello", 8, temperature=0)
        assert 0 < answer.tokens_generated <= 8 and answer.latency_ms > 0
        assert (await deployments.load(record.deployment_id)).requests_per_minute > 0
        await deployments.remove(record.deployment_id)
        with pytest.raises(NotFound):
            await deployments.get(record.deployment_id)

    with prefect_of(studio):
        asyncio.run(remove())
    assert eventually(lambda: not deployed.processes(), 20)
