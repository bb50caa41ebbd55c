"""What a job's target takes: an export that is started once, waited for, and told of however it ends; in memory."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from prefect.client.schemas.objects import StateType

from infra.adapters.records import made_adapter
from infra.credentials import CredentialsInMemory
from infra.exports.conversions import Conversions
from infra.exports.runs import ExportRunsInMemory
from infra.platforms.connections import Platforms
from infra.settings import Settings
from peft_studio.adapters import Adapter
from peft_studio.config import TrainingConfig
from peft_studio.errors import InvalidConfig
from peft_studio.events import now
from peft_studio.exports import ExportStep, ExportTask, export_id_of
from peft_studio.jobs import Artifact, JobStatus
from peft_studio.plan import PlannedConversion
from tests.adapter_files import write_adapter
from tests.model_folders import write_model

pytestmark = pytest.mark.anyio
JOB = "job_" + "0b" * 16
MERGED = PlannedConversion(target="replicate", format="merged", reason="it takes no adapters")
LORA = PlannedConversion(target="vllm", format="lora", rank=2, reason="it reads one rank")


@pytest.fixture
def adapter(tmp_path: Path) -> Adapter:
    base = write_model(tmp_path / "base")
    (folder := tmp_path / "adapter").mkdir()
    weights = write_adapter(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "rank_pattern": {"q_proj": 2}}')
    config = TrainingConfig(base_model=str(base), dataset_path="rows.jsonl")
    return made_adapter(JOB, config, Artifact(path=str(weights), size_bytes=1, hash="sha256:0"), now())


@pytest.fixture
def runs() -> ExportRunsInMemory:
    return ExportRunsInMemory()


@pytest.fixture
def conversions(runs: ExportRunsInMemory, studio_settings: Settings) -> Conversions:
    platforms = Platforms(CredentialsInMemory(), studio_settings)
    return Conversions(runs, platforms, studio_settings, look_seconds=0.01)


def end(runs: ExportRunsInMemory, state: StateType, error: str | None = None) -> None:
    (run_id,) = runs.runs
    step = ExportStep(step="done", progress=1, error=error).model_dump_json()
    runs.runs[run_id] = replace(runs.runs[run_id], state_type=state, result=step)


async def test_a_job_starts_what_its_plan_says_once_however_often_it_begins_anew(
    conversions: Conversions, runs: ExportRunsInMemory, adapter: Adapter
) -> None:
    first, again = [await conversions.start(adapter, LORA) for _ in range(2)]
    assert first.id == again.id
    (run,) = runs.runs.values()
    task = ExportTask.model_validate(run.parameters["task"])
    assert (task.adapter_id, task.config.format, task.config.rank) == (adapter.id, "lora", 2)


async def test_a_job_waits_until_the_export_is_there(
    conversions: Conversions, runs: ExportRunsInMemory, adapter: Adapter
) -> None:
    started = await conversions.start(adapter, MERGED)
    waiting = asyncio.create_task(conversions.wait(started, MERGED, 60))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    end(runs, StateType.COMPLETED)
    found = await waiting
    assert (found.status, found.export_id, found.error) == (JobStatus.COMPLETED, export_id_of(started.id), None)
    assert (found.target, found.format) == ("replicate", "merged")


async def test_an_export_that_fails_is_deleted_or_takes_too_long_is_told_of(
    conversions: Conversions, runs: ExportRunsInMemory, adapter: Adapter
) -> None:
    started = await conversions.start(adapter, MERGED)
    assert (await conversions.wait(started, MERGED, 0)).status is JobStatus.PENDING
    end(runs, StateType.FAILED, "llama.cpp cannot load the file")
    failed = await conversions.wait(started, MERGED, 60)
    assert (failed.status, failed.error) == (JobStatus.FAILED, "llama.cpp cannot load the file")
    await runs.delete(started.id)
    gone = await conversions.wait(started, MERGED, 60)
    assert (gone.status, gone.error) == (JobStatus.CANCELLED, "The export was deleted.")


async def test_a_job_that_is_tried_again_makes_anew_what_came_to_nothing(
    conversions: Conversions, runs: ExportRunsInMemory, adapter: Adapter
) -> None:
    first = await conversions.start(adapter, MERGED)
    await conversions.cancel(JOB)
    second = await conversions.start(adapter, MERGED)
    assert second.id != first.id and (await conversions.start(adapter, MERGED)).id == second.id
    await conversions.cancel(JOB)
    assert runs.runs[second.id].state_type is StateType.CANCELLED


async def test_a_base_model_that_has_changed_since_is_refused_before_anything_starts(
    conversions: Conversions, runs: ExportRunsInMemory, adapter: Adapter
) -> None:
    Path(adapter.base_model).rename(adapter.base_model + "-moved")
    with pytest.raises(InvalidConfig, match="base model"):
        await conversions.start(adapter, MERGED)
    assert runs.runs == {}


async def test_the_export_of_a_cancelled_job_is_cancelled_too_and_no_other(
    conversions: Conversions, runs: ExportRunsInMemory, adapter: Adapter
) -> None:
    await conversions.cancel(JOB)  # there is none yet
    started = await conversions.start(adapter, MERGED)
    await conversions.cancel("job_" + "0c" * 16)
    assert runs.runs[started.id].state_type is StateType.SCHEDULED
    await conversions.cancel(JOB)
    assert runs.runs[started.id].state_type is StateType.CANCELLED
