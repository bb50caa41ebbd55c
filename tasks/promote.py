"""Decide whether the adapter is deployed: the job's promotion gate."""

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from infra.adapters.lineages import add_promotion
from infra.jobs.record import JobRecord
from infra.prefect_patience import attempt
from peft_studio.jobs import Evaluation
from peft_studio.promotion import DeployIf, Promotion, decide
from tasks.upload import Stored


@task(name="promote", cache_policy=NO_CACHE)
def promote(stored: Stored, rule: DeployIf, evaluation: Evaluation) -> Promotion:
    """Let the adapter pass or not, and say why: in the log, in its lineage, and as an event where it does not."""
    record = JobRecord.current()
    confidence = evaluation.bootstrap.confidence if evaluation.bootstrap else 0.0
    found = decide(rule, evaluation.comparison, confidence)
    add_promotion(Path(stored.artifact.path).parent, record.run, found)
    if found.allowed:
        record.say(f"The adapter is deployed. {found.reason}")
        return found
    again = f"An admin can have it deployed with POST /jobs/{record.job_id}/promote."
    record.say(f"The adapter is not deployed. {found.reason} {again}", "WARNING")
    payload = {"job_id": record.job_id, "adapter_id": stored.adapter_id, "reason": found.reason}
    attempt(lambda: emit_event("peft-studio.deployment-refused", resource=record.resource, payload=payload))
    return found
