"""An adapter on a platform, here a simulated vLLM: deployed by a flow run that is killed half way, then deleted."""

from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest

from benchmarks.studio import Studio
from infra.jobs.heartbeats import HEARTBEAT
from infra.simulators.vllm import VllmServer, create_vllm
from peft_studio.jobs import JobStatus
from tests.acceptance.conftest import eventually, logs
from tests.acceptance.jobs import follow, job, submit
from tests.loopback import on_loopback

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
KEY = "key-of-the-server"


@pytest.fixture
def server() -> VllmServer:
    return VllmServer(key=KEY)


@pytest.fixture
def http(studio: Studio, server: VllmServer) -> Iterator[httpx.Client]:
    """A client of a studio that is connected to the server."""
    headers = {"Authorization": f"Bearer {studio.new_key(f'hosted-{uuid4().hex[:8]}')}"}
    with on_loopback(create_vllm(server)) as url, httpx.Client(base_url=studio.url, headers=headers, timeout=60) as api:
        given = {"credentials": {"base_url": url, "api_key": KEY}}
        api.post("/api/v1/platforms/vllm/connect", json=given).raise_for_status()
        yield api
        server.mute = False
        assert eventually(lambda: disconnected(api), 60), logs(studio.data_dir)


def disconnected(http: httpx.Client) -> bool:
    """Leave the server, and take off first what a test that failed has left on it, for that is tried once more."""
    for left in http.get("/api/v1/deployments").raise_for_status().json()["deployments"]:
        http.delete(f"/api/v1/deployments/{left['deployment_id']}")
    return http.delete("/api/v1/platforms/vllm").is_success


def when_running(http: httpx.Client, where: str) -> dict[str, Any]:
    """Wait for a deployment; once a second, as a key may ask so often."""
    shown: dict[str, Any] = {"status": "deploying"}
    for _ in range(90):
        if shown["status"] != "deploying":
            break
        sleep(1)
        shown = http.get(where).raise_for_status().json()
    return shown


@pytest.fixture(scope="module")
def adapter_id(studio: Studio) -> str:
    job_id = submit(studio)
    follow(studio, job_id)
    assert job(studio, job_id).status is JobStatus.COMPLETED, logs(studio.data_dir)
    return job_id.replace("job_", "adapter_")


def deploy(http: httpx.Client, adapter_id: str) -> str:
    """Ask for a deployment, and return its id."""
    wanted = {"adapter_id": adapter_id, "platform": "vllm"}
    return http.post("/api/v1/deployments", json=wanted).raise_for_status().json()["deployment_id"]


def test_a_jobs_adapter_is_deployed_although_its_flow_is_killed_and_is_gone_when_it_is_deleted(
    studio: Studio, http: httpx.Client, server: VllmServer, adapter_id: str
) -> None:
    deployment_id = deploy(http, adapter_id)
    where = f"/api/v1/deployments/{deployment_id}"

    assert eventually(lambda: server.adapters, 60), logs(studio.data_dir)
    heartbeat = Path(studio.data_dir, "deploying", deployment_id, HEARTBEAT)
    server.mute = True  # it cannot come to its end
    killed = psutil.Process(int(heartbeat.read_text()))
    killed.kill()
    server.mute = False
    shown = when_running(http, where)
    assert shown["status"] == "running", logs(studio.data_dir)
    assert shown["effect"]["verdict"] == "effective", shown["effect"]
    assert heartbeat.read_text() != f"{killed.pid}\n"  # it was gone on with by another process
    assert len(server.adapters) == 1 and KEY not in str(shown)

    answer = http.post(f"{where}/test", json={"prompt": "Hello", "max_tokens": 8}).raise_for_status().json()
    assert answer["tokens_generated"] == 8
    assert http.delete(where).status_code == 200
    assert server.adapters == {} and http.get(where).status_code == 404


def test_one_that_is_deleted_half_way_is_stopped_and_gone(
    studio: Studio, http: httpx.Client, server: VllmServer, adapter_id: str
) -> None:
    server.mute = True
    where = f"/api/v1/deployments/{deploy(http, adapter_id)}"
    assert eventually(lambda: server.adapters, 60), logs(studio.data_dir)
    answer = http.delete(where)
    for _ in range(3):  # a busy worker may take longer to stop the run than the request waits
        if answer.status_code == 200:
            break
        assert answer.status_code == 503 and http.get(where).json()["status"] == "stopped"
        answer = http.delete(where)
    assert answer.status_code == 200, logs(studio.data_dir)
    assert server.adapters == {} and http.get(where).status_code == 404
