"""Make the adapter into what the job's ``serve_target`` takes."""

import asyncio

from prefect import task
from prefect.cache_policies import NO_CACHE

from infra.adapters.records import made_adapter
from infra.credentials import CredentialsInPrefect
from infra.exports.conversions import Conversions
from infra.exports.runs import ExportRunsOnServer
from infra.jobs.record import JobRecord
from infra.platforms.connections import Platforms
from infra.settings import settings
from peft_studio.adapters import Adapter
from peft_studio.errors import ResourceUnavailable, StudioError
from peft_studio.events import LogLevel, now
from peft_studio.jobs import Conversion, JobStatus, Phase
from peft_studio.plan import Plan, PlannedConversion
from tasks.retrying import retry_on
from tasks.upload import Stored

_LONGEST_SECONDS = 12 * 3600.0  # others may be before it in the queue of exports


def convert_for_target(stored: Stored, plan: Plan) -> Conversion | None:
    """
    Have the planned export made, and return what came of it; None where the target takes the adapter as it is.

    The adapter is in the store already: where it cannot be converted the job has it all the same, and says what is
    missing; ``POST /adapters/{id}/exports`` tries again.
    """
    if (planned := plan.conversion) is None:
        return None
    record = JobRecord.current()
    record.enter(Phase.CONVERTING)
    adapter = made_adapter(record.job_id, plan.config, stored.artifact, now())
    try:
        conversion = export(adapter, planned)
    except StudioError as error:
        conversion = Conversion(
            target=planned.target, format=planned.format, status=JobStatus.FAILED, error=error.message
        )
    record.say(*_told(conversion, adapter.id))
    return conversion


@task(
    name="convert for its target",
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=[2, 10, 60],
    retry_condition_fn=retry_on(ResourceUnavailable),
)
def export(adapter: Adapter, planned: PlannedConversion) -> Conversion:
    """Start the export, a flow run of its own, and wait for its end; done twice it is the same export."""

    async def exported() -> Conversion:
        conversions = _conversions()
        return await conversions.wait(await conversions.start(adapter, planned), planned, _LONGEST_SECONDS)

    return asyncio.run(exported())


def stop_conversion(record: JobRecord) -> None:
    """Stop the export of a job that was cancelled; for the flow's hooks."""
    asyncio.run(_conversions().cancel(record.job_id))


def _conversions() -> Conversions:
    return Conversions(ExportRunsOnServer(), Platforms(CredentialsInPrefect(), settings()), settings())


def _told(conversion: Conversion, adapter_id: str) -> tuple[str, LogLevel]:
    match conversion.status:
        case JobStatus.COMPLETED:
            return f"What {conversion.target} takes is the export {conversion.export_id} ({conversion.format}).", "INFO"
        case JobStatus.FAILED | JobStatus.CANCELLED:
            again = f"make it with POST /adapters/{adapter_id}/exports"
            return (
                f"{conversion.target} cannot serve the adapter yet: {conversion.error} To mend that, {again}.",
                "WARNING",
            )
        case _:
            at = f"GET /exports/{conversion.export_id} says how far it is"
            return f"{conversion.target} cannot serve the adapter yet: its export is still to be made; {at}.", "WARNING"
