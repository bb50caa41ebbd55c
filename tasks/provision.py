"""Get the machine that the job trains on."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from infra import machines
from infra.job_record import JobRecord
from infra.machines import Machine
from peft_studio.errors import ResourceUnavailable
from peft_studio.jobs import Phase
from peft_studio.plan import Plan
from tasks.retrying import retry_on


@task(
    name="provision",
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=[5, 30, 120],
    retry_condition_fn=retry_on(ResourceUnavailable),
    timeout_seconds=1800,
)
def provision(plan: Plan) -> Machine:
    """Rent the machine; a job that already has one keeps it."""
    record = JobRecord.current()
    record.enter(Phase.PROVISIONING)
    machine = machines.rent(plan, record.job_id)
    record.run.write("machine.json", machine)
    return machine
