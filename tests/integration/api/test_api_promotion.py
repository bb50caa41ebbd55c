"""Overriding the promotion gate: who may, what is recorded, and that a refused adapter is deployed in no other way."""

from pathlib import Path
from typing import Any

import pytest

from infra.adapters.lineages import read_lineage
from infra.serving.records import DeploymentsInMemory
from peft_studio.jobs import JobStatus, TrainingSummary
from peft_studio.lineage import LINEAGE, BaseOrigin, DataOrigin, Lineage, MachineOrigin
from peft_studio.plan import RowFormat
from peft_studio.promotion import DeployIf, Promotion, decide
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.machines import made
from tests.integration.api.studio_in_memory import START, JobsInMemory
from tests.model_folders import write_model

pytestmark = pytest.mark.anyio
WHY = {"reason": "Support has compared 50 answers by hand."}
REFUSED = decide(DeployIf(measure="chrf"), {}, 0.95)


@pytest.fixture
def refused(jobs: JobsInMemory, tmp_path: Path) -> str:
    """A job that was completed, and whose adapter its gate did not let pass."""
    base = str(write_model(tmp_path / "base"))
    return gated(jobs, tmp_path, REFUSED, base_model=base, model_source="local", deploy={"platform": "local"})


def gated(jobs: JobsInMemory, home: Path, promotion: Promotion | None, **config: Any) -> str:
    job = made(jobs, home / "data", **config)
    adapter_id = job.job_id.replace("job_", "adapter_")
    assert job.artifact
    lineage = Lineage(
        adapter_id=adapter_id,
        job_id=job.job_id,
        trained_by=job.job_id,
        created_at=START,
        base_model=BaseOrigin(id="m", source="local", revision="r", architecture="A"),
        dataset=DataOrigin(path="d", sha256="0" * 64, format=RowFormat.MESSAGES, rows=9),
        config=job.config,
        seed=0,
        versions={},
        machine=MachineOrigin(provider="local"),
        cost=0,
        training=TrainingSummary(
            **dict.fromkeys(("total_steps", "epochs", "final_loss", "best_loss", "train_rows", "held_out_rows"), 1),
            **dict.fromkeys(("tokens", "supervised_tokens", "trainable_parameters"), 1),
            **dict.fromkeys(("tokens_per_second", "seconds", "peak_memory_mb"), 1.0),
        ),
        promotion=promotion,
        files={},
    )
    (Path(job.artifact.path).parent / LINEAGE).write_text(lineage.model_dump_json())
    jobs.jobs[job.job_id] = job.model_copy(update={"promotion": promotion, "adapter_id": adapter_id})
    return job.job_id


async def test_an_override_that_was_written_half_is_written_whole_when_it_is_asked_for_again(
    connect: Connect, jobs: JobsInMemory, refused: str
) -> None:
    admin, artifact = connect("rules"), jobs.jobs[refused].artifact
    assert artifact
    lineage = Path(artifact.path).parent / LINEAGE
    before = lineage.read_text()
    assert promote(admin, refused).status_code == 200
    lineage.write_text(before)  # as a process leaves it that is killed between its two records
    assert promote(admin, refused).status_code == 200
    told = read_lineage(lineage.parent)
    assert told and told.promotion and told.promotion.override


def promote(client: Client, job_id: str, body: Any = WHY) -> Any:
    return client.post(f"/api/v1/jobs/{job_id}/promote", json=body)


def deploy(client: Client, job_id: str) -> Any:
    return client.post("/api/v1/deployments", json={"adapter_id": job_id.replace("job_", "adapter_")})


async def test_an_admin_has_a_refused_adapter_deployed_and_that_is_recorded(
    connect: Connect, jobs: JobsInMemory, deployments: DeploymentsInMemory, refused: str
) -> None:
    admin = connect("rules")
    answer = promote(admin, refused)
    assert answer.status_code == 200, answer.text
    (record,) = await deployments.all()
    assert answer.json()["deployment_id"] == record.deployment_id
    override = answer.json()["promotion"]["override"]
    assert (override["key_name"], override["reason"]) == ("rules", WHY["reason"])
    shown = admin.get(f"/api/v1/jobs/{refused}").json()["promotion"]
    assert (shown["allowed"], shown["override"]) == (False, override)
    artifact = jobs.jobs[refused].artifact
    lineage = read_lineage(Path(artifact.path).parent) if artifact else None
    assert lineage and lineage.promotion and lineage.promotion.override
    assert lineage.promotion.override.key_id == override["key_id"]
    assert deploy(admin, refused).status_code == 201, "what was overridden is refused no longer"


async def test_an_override_that_is_asked_for_again_is_the_first_one(
    connect: Connect, deployments: DeploymentsInMemory, refused: str
) -> None:
    admin = connect("rules")
    first = promote(admin, refused).json()
    assert promote(admin, refused, {"reason": "another"}).json() == first
    assert len(await deployments.all()) == 1


async def test_only_admins_may_override(client: Client, deployments: DeploymentsInMemory, refused: str) -> None:
    answer = promote(client, refused)
    assert answer.status_code == 403
    assert "admin" in answer.json()["error"]["message"]
    assert await deployments.all() == []


async def test_a_refused_adapter_is_not_deployed_by_another_way(
    client: Client, deployments: DeploymentsInMemory, refused: str
) -> None:
    answer = deploy(client, refused)
    assert answer.status_code == 409
    assert f"POST /jobs/{refused}/promote" in answer.json()["error"]["message"]
    assert REFUSED.reason in answer.json()["error"]["message"]
    assert await deployments.all() == []


@pytest.mark.parametrize("promotion", [None, REFUSED.model_copy(update={"allowed": True})])
def test_where_nothing_was_refused_there_is_nothing_to_override(
    connect: Connect, jobs: JobsInMemory, tmp_path: Path, promotion: Promotion | None
) -> None:
    job_id = gated(jobs, tmp_path, promotion)
    assert promote(connect("rules"), job_id).status_code == 409
    running = jobs.add(status=JobStatus.RUNNING).job_id
    assert promote(connect("rules"), running).status_code == 409
    assert promote(connect("rules"), "job_" + "0" * 32).status_code == 404


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": "  "}, {"reason": "x" * 1001}, {"why": "so"}])
def test_an_override_has_a_reason(connect: Connect, refused: str, body: dict[str, str]) -> None:
    assert promote(connect("rules"), refused, body).status_code == 400
