"""Compute resources over HTTP: this machine, what it costs, and how long one waits."""

from pathlib import Path
from typing import Any

import pytest

from peft_studio.config import TrainingConfig
from peft_studio.errors import ResourceUnavailable
from peft_studio.jobs import JobStatus
from peft_studio.machine import Gpu
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.studio_in_memory import CONFIG, JobsInMemory
from tests.measured_machine import measured

PRICING = "/api/v1/resources/local/local/pricing"


@pytest.fixture
def client(connect: Connect, tmp_path: Path) -> Client:
    measured(tmp_path)
    return connect(data_dir=tmp_path)


def test_a_machine_without_a_gpu_is_listed_as_such(client: Client) -> None:
    (machine,) = client.get("/api/v1/resources").json()["resources"]
    assert (machine["id"], machine["provider"], machine["name"]) == ("local", "local", "CPU")
    assert (machine["gpu_type"], machine["gpu_count"], machine["vram_gb"]) == (None, 0, None)
    assert (machine["cpu_cores"], machine["ram_gb"], machine["available"]) == (16, 64, True)
    assert machine["storage_gb"] > 0
    assert machine["pricing"]["hourly_rate"] == 0


def test_gpus_are_counted_and_named(client: Client, tmp_path: Path) -> None:
    measured(tmp_path, *2 * [Gpu(name="RTX 4090", vram_gb=24)])
    (machine,) = client.get("/api/v1/resources").json()["resources"]
    assert (machine["gpu_type"], machine["gpu_count"], machine["vram_gb"]) == ("RTX 4090", 2, 24)


def test_without_a_worker_the_machine_is_there_and_not_available(client: Client, jobs: JobsInMemory) -> None:
    for query, ready, count in [("true", 1, 0), ("false", 0, 1)]:
        jobs.trouble = None
        assert len(client.get(f"/api/v1/resources?available={query}").json()["resources"]) == ready
        jobs.trouble = ResourceUnavailable("No worker takes jobs.")
        assert len(client.get(f"/api/v1/resources?available={query}").json()["resources"]) == count


def test_a_machine_that_was_not_measured_is_not_made_up(connect: Connect, tmp_path: Path) -> None:
    answer = connect(data_dir=tmp_path / "new").get("/api/v1/resources")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "RESOURCE_UNAVAILABLE"


@pytest.mark.parametrize(
    ("path", "status", "code", "field"),
    [
        ("/resources?provider=runpod", 409, "PLATFORM_NOT_CONNECTED", "provider"),
        ("/resources?provider=nobody", 404, "NOT_FOUND", "provider"),
        ("/resources?available=perhaps", 400, "INVALID_CONFIG", "available"),
        ("/resources/runpod/gpu-rtx4090/pricing", 409, "PLATFORM_NOT_CONNECTED", "provider"),
        ("/resources/nobody/local/pricing", 404, "NOT_FOUND", "provider"),
        ("/resources/local/gpu-rtx4090/pricing", 404, "NOT_FOUND", "resource_id"),
    ],
)
def test_what_there_is_not_is_refused_by_field(client: Client, path: str, status: int, code: str, field: str) -> None:
    answer = client.get("/api/v1" + path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["details"]["field"] == field


@pytest.mark.parametrize(
    ("statuses", "queue", "wait"),
    [([], 0, 0), ([JobStatus.COMPLETED], 0, 0), ([JobStatus.RUNNING], 0, None), (2 * [JobStatus.PENDING], 2, None)],
)
def test_the_wait_is_told_where_it_is_known(
    client: Client, jobs: JobsInMemory, statuses: list[JobStatus], queue: int, wait: Any
) -> None:
    jobs.add(config=TrainingConfig.model_validate(CONFIG | {"provider": "runpod"}))
    for status in statuses:
        jobs.add(status=status)
    answer = client.get(PRICING).json()
    assert answer["availability"] == {"available": True, "queue_length": queue, "estimated_wait_minutes": wait}
    assert answer["pricing"] == {
        "hourly_rate": 0.0,
        "spot_hourly_rate": None,
        "currency": "USD",
        "billing_increment": 1,
        "minimum_charge": 0.0,
    }


def test_pricing_is_not_known_while_the_queue_is_not(client: Client, jobs: JobsInMemory) -> None:
    jobs.trouble = ResourceUnavailable("The Prefect server does not answer.")
    assert client.get(PRICING).status_code == 503
