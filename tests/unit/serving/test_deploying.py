"""The step that deploys a job's adapter, with records in memory and a keeper that only writes."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from infra.serving.local import LocalDeployments
from infra.serving.records import Deployment, DeploymentsInMemory
from peft_studio.adapter_files import WEIGHTS
from peft_studio.config import TrainingConfig
from peft_studio.deployments import DeploymentStatus
from peft_studio.errors import InvalidConfig, NotFound, ResourceUnavailable
from peft_studio.jobs import Artifact
from peft_studio.plan import DatasetFacts, ModelFacts, Plan, RowFormat
from tasks.deploy import serve
from tasks.upload import Stored

pytestmark = pytest.mark.anyio


@pytest.fixture
def stored(adapters: Mapping[str, Path]) -> Stored:
    weights = adapters["lora"] / WEIGHTS
    artifact = Artifact(path=str(weights), size_bytes=weights.stat().st_size, hash="sha256:" + "0" * 64)
    return Stored(adapter_id="adapter_1", artifact=artifact)


def plan(layout: RowFormat = RowFormat.MESSAGES, *, template: bool = True) -> Plan:
    model = ModelFacts(
        id="org/model",
        revision="abc",
        architecture="Llama",
        parameters=1,
        linear_modules=[],
        has_chat_template=template,
    )
    dataset = DatasetFacts(path="rows.jsonl", sha256="0", format=layout, rows=1, bytes=1, characters=1)
    config = TrainingConfig(base_model="org/model", dataset_path="rows.jsonl")
    return Plan(
        config=config,
        model=model,
        dataset=dataset,
        cache_key="0",
        total_steps=1,
        estimated_cost=None,
        estimated_duration_minutes=None,
    )


async def becomes(records: DeploymentsInMemory, **changes: Any) -> Deployment:
    """Wait for a record, and write into it what came of it."""
    while not (found := await records.all()):
        await asyncio.sleep(0)
    changed = found[0].model_copy(update=changes)
    await records.replace(changed)
    return changed


async def test_the_deployment_is_asked_for_as_the_adapter_was_trained(stored: Stored) -> None:
    for layout, template, chat in [
        (RowFormat.MESSAGES, True, True),
        (RowFormat.INSTRUCTION, True, True),
        (RowFormat.INSTRUCTION, False, False),
        (RowFormat.TEXT, True, False),
    ]:
        records = DeploymentsInMemory()
        serving = asyncio.create_task(serve(stored, plan(layout, template=template), "ab12", LocalDeployments(records)))
        record = await becomes(records, status=DeploymentStatus.FAILED, error="enough")
        with pytest.raises(InvalidConfig):
            await serving
        assert (record.deployment_id, record.adapter_id, record.chat) == ("deploy_ab12", "adapter_1", chat)
        assert (record.base_model, record.revision) == ("org/model", "abc")
        assert Path(record.adapter) == Path(stored.artifact.path).parent


async def test_a_deployment_that_fails_says_why_and_leaves_nothing_running(stored: Stored) -> None:
    records = DeploymentsInMemory()
    serving = asyncio.create_task(serve(stored, plan(), "ab12", LocalDeployments(records)))
    await becomes(records, status=DeploymentStatus.FAILED, error="it does not fit")
    with pytest.raises(InvalidConfig, match="it does not fit"):
        await serving
    assert not (await records.get("deploy_ab12")).is_wanted


async def test_a_deployment_that_does_not_answer_is_stopped(stored: Stored) -> None:
    records = DeploymentsInMemory()
    serving = asyncio.create_task(serve(stored, plan(), "ab12", LocalDeployments(records)))
    await becomes(records, status=DeploymentStatus.RUNNING, endpoint="http://127.0.0.1:1/v1")
    with pytest.raises(ResourceUnavailable):
        await serving
    assert (await records.get("deploy_ab12")).status is DeploymentStatus.STOPPED


async def test_one_that_takes_too_long_is_given_up() -> None:
    deployments = LocalDeployments(DeploymentsInMemory())
    created = await deployments.create("adapter_1", "/adapter", "org/model")
    with pytest.raises(ResourceUnavailable, match="not running after"):
        await deployments.wait(created.deployment_id, 0)


async def test_removing_one_that_never_ran_forgets_it() -> None:
    deployments = LocalDeployments(DeploymentsInMemory())
    created = await deployments.create("adapter_1", "/adapter", "org/model")
    await deployments.remove(created.deployment_id)
    with pytest.raises(NotFound):
        await deployments.remove(created.deployment_id)


async def test_deployments_are_listed_newest_first_and_by_state() -> None:
    records = DeploymentsInMemory()
    deployments = LocalDeployments(records)
    first, second = [await deployments.create("adapter_1", "/adapter", "org/model") for _ in range(2)]
    assert await deployments.list() == [second, first]
    stopped = await deployments.stop(first.deployment_id)
    assert await deployments.list(DeploymentStatus.STOPPED) == [stopped]
    assert await deployments.list(DeploymentStatus.RUNNING) == []
