"""Put the adapter where it stays."""

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel

from infra.adapters import store as adapters
from infra.adapters.lineages import draw_up, read_lineage
from infra.jobs.record import JobRecord
from infra.settings import settings
from peft_studio.jobs import Artifact, Phase
from peft_studio.lineage import LINEAGE
from peft_studio.plan import Plan
from tasks.retrying import retry_on
from tasks.train import Trained


class Stored(BaseModel):
    """An adapter in the store."""

    adapter_id: str
    artifact: Artifact


@task(
    name="upload",
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=[2, 10, 60],
    retry_condition_fn=retry_on(OSError),
    timeout_seconds=3600,
)
def upload(trained: Trained, plan: Plan, cost: float | None = None) -> Stored:
    """Copy the adapter into the store with its lineage, whole or not at all."""
    record = JobRecord.current()
    record.enter(Phase.UPLOADING)
    source = settings().run_dir(trained.job_id).adapter
    lineage = draw_up(record.job_id, plan, trained.job_id, trained.summary, cost, settings())
    adapter_id, artifact = adapters.store(source, record.job_id, plan.config, settings(), lineage)
    if stored := read_lineage(Path(artifact.path).parent):
        record.run.write(LINEAGE, stored)  # outlives the adapter
    record.say(f"The adapter is at {artifact.path} ({artifact.size_bytes:,} bytes).")
    return Stored(adapter_id=adapter_id, artifact=artifact)
