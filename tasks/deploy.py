"""Put the adapter behind an endpoint, and have it answer there."""

import asyncio
from contextlib import suppress
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from infra.jobs.record import JobRecord
from infra.serving.local import LocalDeployments
from infra.serving.records import PREFIX as DEPLOYMENT_PREFIX
from infra.serving.records import Deployment
from peft_studio.effect import Verdict
from peft_studio.errors import DeployFailed, InvalidConfig, NotFound, ResourceUnavailable, TrainingFailed
from peft_studio.jobs import PREFIX, Phase
from peft_studio.plan import Plan
from tasks.retrying import retry_on
from tasks.upload import Stored

_READY_SECONDS = 1800.0  # a large base model takes its time to be downloaded and loaded
_PROOF = "Hello"
_PROOF_TOKENS = 16


@task(
    name="deploy",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[1, 10],
    retry_condition_fn=retry_on(ResourceUnavailable),
    timeout_seconds=2 * _READY_SECONDS,
)
def deploy(stored: Stored, plan: Plan) -> str:
    """Deploy the stored adapter, prompt it, and return its endpoint; done twice it is the same deployment."""
    record = JobRecord.current()
    record.enter(Phase.DEPLOYING)
    try:
        key = record.job_id.removeprefix(PREFIX)
        deployment, said = asyncio.run(serve(stored, plan, key, LocalDeployments()))
    except (InvalidConfig, TrainingFailed) as error:
        raise DeployFailed(error.message, **error.details) from error
    if effect := deployment.effect:
        level = "INFO" if effect.verdict is Verdict.EFFECTIVE else "WARNING"
        record.say(f"Effect test: {effect.verdict or 'not possible'}. {effect.reason}", level)
    record.say(f"The adapter answers at {deployment.endpoint} as model {deployment.deployment_id} ({said}).")
    return str(deployment.endpoint)


async def serve(stored: Stored, plan: Plan, key: str, deployments: LocalDeployments) -> tuple[Deployment, str]:
    """Have an adapter served and answer; return the deployment that runs, and what its answer took."""
    created = await deployments.create(
        adapter_id=stored.adapter_id,
        adapter=str(Path(stored.artifact.path).parent),
        base_model=plan.model.path or plan.config.base_model,
        revision=plan.model.revision,
        chat=plan.is_chat,
        key=key,
    )
    try:
        deployment = await deployments.wait(created.deployment_id, _READY_SECONDS)
        answer = await deployments.prompt(created.deployment_id, _PROOF, _PROOF_TOKENS, temperature=0)
    except BaseException:
        await deployments.stop(created.deployment_id)  # a job that did not deploy leaves nothing that runs
        raise
    return deployment, f"{answer.tokens_generated} tokens in {answer.latency_ms:.0f} ms"


def withdraw(record: JobRecord) -> None:
    """Stop serving the adapter of a job that did not come to a good end; for the flow's hooks."""
    with suppress(NotFound):
        asyncio.run(LocalDeployments().stop(DEPLOYMENT_PREFIX + record.job_id.removeprefix(PREFIX)))
