"""What users were promised of resources and adapters: the examples of the API's document, as a table."""

from pathlib import Path

import pytest

from peft_studio.machine import Gpu
from tests.contract.shapes import INTEGER, NUMBER, TEXT, TIME, TRUE, Shape, differences
from tests.integration.api.fixtures import Connect
from tests.integration.api.machines import made, measured
from tests.integration.api.studio_in_memory import JobsInMemory

RATE: Shape = {"hourly_rate": NUMBER, "currency": "USD"}
ADAPTER: Shape = {
    **dict.fromkeys(["id", "job_id", "name", "base_model", "algorithm", "path"], TEXT),
    "size_bytes": INTEGER,
    "created_at": TIME,
    "metadata": {"rank": INTEGER, "alpha": NUMBER, "target_modules": [TEXT]},
}
ANSWERS: list[tuple[str, Shape]] = [
    (
        "/resources?provider=local&available=true",
        {
            "resources": [
                {
                    **dict.fromkeys(["id", "provider", "name", "gpu_type"], TEXT),
                    **dict.fromkeys(["gpu_count", "cpu_cores"], INTEGER),
                    **dict.fromkeys(["vram_gb", "ram_gb", "storage_gb"], NUMBER),
                    "available": TRUE,
                    "pricing": RATE,
                }
            ]
        },
    ),
    (
        "/resources/local/local/pricing",
        {
            "resource_id": TEXT,
            "provider": TEXT,
            "pricing": {**RATE, "billing_increment": INTEGER, "minimum_charge": NUMBER},
            "availability": {"available": TRUE, "queue_length": INTEGER, "estimated_wait_minutes": NUMBER},
        },
    ),
    ("/adapters?job_id=JOB&limit=5", {"adapters": [ADAPTER]}),
]


@pytest.mark.parametrize(("path", "shape"), ANSWERS, ids=[path for path, _ in ANSWERS])
def test_an_answer_has_what_was_promised(
    connect: Connect, jobs: JobsInMemory, tmp_path: Path, path: str, shape: Shape
) -> None:
    measured(tmp_path, Gpu(name="RTX 4090", vram_gb=24))
    job = made(jobs, tmp_path)
    answer = connect(data_dir=tmp_path).get("/api/v1" + path.replace("JOB", job.job_id))
    assert answer.status_code == 200
    assert differences(shape, answer.json()) == []
