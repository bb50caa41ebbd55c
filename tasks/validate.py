"""Refuse what cannot work, and pin down what the job stands on."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from infra.credentials import CredentialsInPrefect, connected_now
from infra.jobs.holds import hold
from infra.jobs.record import JobRecord
from infra.planning.market import market_now
from infra.planning.planner import make_plan, platforms_of
from infra.settings import settings
from infra.trackers.destinations import tracker_of
from infra.trackers.waiting import Waiting
from peft_studio.config import TrainingConfig
from peft_studio.errors import ResourceUnavailable
from peft_studio.jobs import Phase
from peft_studio.plan import Plan
from tasks.retrying import retry_on


@task(
    name="validate",
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=[2, 10, 30],
    retry_condition_fn=retry_on(ResourceUnavailable),
    timeout_seconds=600,
)
def validate(config: TrainingConfig) -> Plan:
    """Check model, data and settings; return the plan that every attempt follows."""
    record = JobRecord.current()
    record.enter(Phase.VALIDATING)
    # A job that was interrupted goes on with the model and the data it began with.
    plan = record.run.read("plan.json", Plan) or _planned(config)
    hold(plan, record.run, settings())
    record.run.write("config.json", config)
    record.run.write("plan.json", plan)
    if tracker_of(config):
        Waiting(settings()).add(record.job_id)
    record.say(
        f"{plan.model.architecture} with {plan.model.parameters:,} parameters, {plan.dataset.rows:,} rows "
        f"({plan.dataset.format}), {plan.total_steps:,} optimizer steps."
    )
    return plan


def _planned(config: TrainingConfig) -> Plan:
    on_offer = market_now(config, settings(), CredentialsInPrefect())
    return make_plan(config, settings(), connected_now(platforms_of(config)), on_offer)
