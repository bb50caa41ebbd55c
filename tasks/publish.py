"""Publish the adapter in the registries that the job names."""

import asyncio
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from infra.adapters.lineages import add_evaluation
from infra.adapters.records import made_adapter
from infra.credentials import CredentialsInPrefect
from infra.jobs.record import JobRecord
from infra.registries.publications import ask_for, carry_out
from infra.registries.sending import Sender
from infra.settings import settings
from peft_studio.events import now
from peft_studio.jobs import Evaluation, Phase
from peft_studio.plan import Plan
from peft_studio.registries import PublicationStatus
from tasks.upload import Stored


@task(name="publish", cache_policy=NO_CACHE)
def publish(stored: Stored, plan: Plan, evaluation: Evaluation) -> None:
    """
    Note what the adapter is worth in its lineage, and send it to the job's registries.

    The adapter is in the studio's own store already: a registry that does not take it is told of, and costs nobody the
    job. What passes was tried again by then (``infra.registries.sending``); ``POST /adapters/{id}/publish`` does so
    later.
    """
    record = JobRecord.current()
    add_evaluation(Path(stored.artifact.path).parent, record.run, evaluation)
    if not plan.config.registries:
        return
    record.enter(Phase.UPLOADING)
    adapter = made_adapter(record.job_id, plan.config, stored.artifact, now())
    ask_for(adapter, plan.config.registries, settings())
    for one in asyncio.run(carry_out(adapter, Sender(CredentialsInPrefect(), settings()), settings())):
        if one.status is PublicationStatus.PUBLISHED:
            record.say(f"The adapter is published at {one.url}.")
        else:
            again = f"publish it again with POST /adapters/{adapter.id}/publish"
            record.say(
                f"The adapter is not published in {one.registry.place}: {one.error} When that is mended, {again}.",
                "WARNING",
            )
