"""Give the machine back."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from infra import machines
from infra.job_record import JobRecord
from infra.machines import Machine
from peft_studio.jobs import Phase


@task(name="release", cache_policy=NO_CACHE, retries=5, retry_delay_seconds=[2, 5, 15, 60, 120], timeout_seconds=600)
def release(machine: Machine) -> float:
    """Release the machine and return what it cost, in its currency."""
    JobRecord.current().enter(Phase.RELEASING)
    return machines.release(machine)


def release_whatever_is_left(record: JobRecord) -> None:
    """Release the machine of a job whose process is gone; for the flow's hooks."""
    if machine := record.run.read("machine.json", Machine):
        machines.release(machine)
