"""Get the machine that the job trains on."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from infra.jobs.record import JobRecord
from infra.machines.base import Machine
from infra.machines.jobs import JobMachines
from peft_studio.errors import RateLimitExceeded, ResourceUnavailable
from peft_studio.jobs import Phase
from peft_studio.plan import Plan
from tasks.retrying import retry_on


@task(
    name="provision",
    cache_policy=NO_CACHE,
    retries=4,
    retry_delay_seconds=[5, 30, 120, 300],
    retry_condition_fn=retry_on(ResourceUnavailable, RateLimitExceeded),
)
def provision(plan: Plan, beyond_gb: float = 0.0) -> Machine:
    """Rent the machine; a job that already has one keeps it. ``beyond_gb``: its GPUs have more memory than that."""
    record = JobRecord.current()
    record.enter(Phase.PROVISIONING)
    return JobMachines(record).provision(plan, beyond_gb)
