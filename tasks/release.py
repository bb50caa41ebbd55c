"""Give the machine back."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from infra.jobs.record import JobRecord
from infra.machines.base import Machine
from infra.machines.jobs import JobMachines
from peft_studio.errors import RateLimitExceeded, ResourceUnavailable
from peft_studio.jobs import Phase
from tasks.retrying import retry_on


@task(
    name="release",
    cache_policy=NO_CACHE,
    retries=5,
    retry_delay_seconds=[2, 5, 15, 60, 120],
    retry_condition_fn=retry_on(ResourceUnavailable, RateLimitExceeded),
)
def release(machine: Machine) -> float | None:
    """Release the machine, and return what all of the job's machines have cost; None where that is not known."""
    record = JobRecord.current()
    record.enter(Phase.RELEASING)
    machines = JobMachines(record)
    if machine.is_rented:
        machines.release("The job had no more use for it.")
    return machines.cost


def release_whatever_is_left(record: JobRecord) -> None:
    """Release the machines of a job whose process is gone; for the flow's hooks."""
    JobMachines(record).release("The job had ended.")
