"""
One run of a schedule: it starts an ordinary job, and ends.

Each schedule is one of this deployment's, with parameters of its own. The job is created with a key of its own, so that
a run whose process is killed starts no second one.
"""

from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run as current_flow_run

from infra.jobs.coordination import Coordinator, forget_old, submitting
from infra.jobs.heartbeats import alone
from infra.schedules.running import Occasion
from infra.settings import settings
from peft_studio.schedules import ScheduledJob


@flow(name="scheduled", retries=3, retry_delay_seconds=10, timeout_seconds=600)
async def scheduled(schedule: ScheduledJob) -> State:
    """Start a schedule's job, unless there is a reason not to."""
    forget_old(settings())
    with alone(Coordinator.current(settings()).folder):
        async with get_client() as client, submitting(client, settings()) as submission:
            occasion = Occasion(UUID(str(current_flow_run.id)), schedule.schedule_id, client, submission)
            return await occasion.take()
