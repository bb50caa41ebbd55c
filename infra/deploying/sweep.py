"""Looks after deployments on platforms: leases that end, what is there and nobody wants, and what is gone there."""

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from prefect.events import emit_event

from infra.deploying.bringing import LOCAL, forget_hosted, host_shows
from infra.deploying.hosting import Hosting
from infra.deploying.runs import DeployRuns
from infra.machines.sweep import SweepReport
from infra.platforms.vendors import VENDORS
from infra.serving.records import Deployment, Deployments
from infra.settings import Settings
from peft_studio.deployments import DeploymentStatus
from peft_studio.errors import NotFound, ResourceUnavailable, StudioError
from peft_studio.events import now
from peft_studio.machine_names import is_hosted_by_studio

log = logging.getLogger(__name__)
_REMOVE_SECONDS = 60.0
_LOST_RUN = timedelta(minutes=5)  # in which a deployment's flow run was started, had its request come to its end
Tell = Callable[[str, Deployment], object]


def tell_prefect(event: str, deployment: Deployment) -> None:
    """Emit an event that automations can be built on."""
    resource = {"prefect.resource.id": f"peft-studio.deployment.{deployment.deployment_id}"}
    payload = {"platform": deployment.platform, "expires_at": str(deployment.expires_at)}
    emit_event(f"peft-studio.deployment.{event}", resource=resource, payload=payload)


class DeploymentSweep:
    """Looks through everything once; ``tell`` is told of leases that end."""

    def __init__(
        self, records: Deployments, hosting: Hosting, runs: DeployRuns, settings: Settings, tell: Tell = tell_prefect
    ):
        self._records = records
        self._hosting = hosting
        self._runs = runs
        self._warned = timedelta(minutes=settings.lease_warning_minutes)
        self._tell = tell

    async def look(self, report: SweepReport) -> None:
        """
        See to every deployment, then to what platforms have besides; add what was found to a report.

        Leases that are over come first. What goes wrong with one thing keeps no other from being looked at; a
        platform that does not answer is left alone until the next look.
        """
        away, ids = set[str](), {one.deployment_id: one.platform for one in await self._records.all()}
        report.issues += [
            f"{one.deployment_id}: its record cannot be read, so it and what it has placed are left as they are"
            for one in await self._records.unreadable()
        ]
        for step in (self._end_if_over, self._tend):
            for deployment_id, platform in ids.items():
                with self._telling(f"{deployment_id} at {platform}", platform, away, report.issues):
                    if (record := await self._read(deployment_id)) and record.is_wanted:
                        await step(record, report, away)
        for platform in await self._hosting.connected():
            # Nobody has to see to an account with which nothing was ever deployed.
            issues = report.issues if platform in ids.values() else list[str]()
            if platform not in away:
                with self._telling(platform, platform, away, issues):
                    await self._look_through(platform, report)

    @contextmanager
    def _telling(self, label: str, platform: str, away: set[str], issues: list[str]) -> Generator[None]:
        """Have an error end the block, and no more than that."""
        try:
            yield
        except StudioError as error:
            log.warning("%s: %s", label, error.message)
            issues.append(f"{label}: {error.message}")
            if isinstance(error, ResourceUnavailable):
                away.add(platform)
        except Exception as error:
            log.exception("Looking after %s failed.", label)
            issue = f"{label}: {type(error).__name__}; see the log of the sweep"
            issues += [] if issue in issues else [issue]

    async def _read(self, deployment_id: str) -> Deployment | None:
        """Read a record as it is now: it may have been renewed since all were read."""
        with suppress(NotFound):
            return await self._records.get(deployment_id)

    async def _end_if_over(self, record: Deployment, report: SweepReport, away: set[str]) -> None:
        if record.expires_at is not None and record.expires_at <= now():
            await self._end_lease(record, report, away)

    async def _tend(self, record: Deployment, report: SweepReport, away: set[str]) -> None:
        if record.expires_at is not None and record.warning is None and record.expires_at - now() <= self._warned:
            warning = f"Its lease ends at {record.expires_at:%Y-%m-%d %H:%M} UTC, and it is taken off then: renew it."
            if (warned := await self._note(record, warning=warning)) is None:
                return
            self._tell("lease-ending", record)
            record = warned
        if record.platform == LOCAL or record.platform in away:
            return
        if record.flow_run_id is None and now() - record.created_at > _LOST_RUN:
            await self._note(record, flow_run_id=await self._runs.create(record))
        elif record.status is DeploymentStatus.RUNNING:
            await self._see_it_there(record, report)
        elif record.flow_run_id is not None and await self._runs.is_over(record.flow_run_id):
            await self._give_up(record, report)

    async def _end_lease(self, record: Deployment, report: SweepReport, away: set[str]) -> None:
        reason = f"Its lease ended at {record.expires_at:%Y-%m-%d %H:%M} UTC, and nobody had renewed it."
        if (ended := await self._note(record, status=DeploymentStatus.STOPPED, reason=reason)) is None:
            return
        self._tell("lease-ended", record)
        if record.flow_run_id is not None:
            await self._runs.cancel(record.flow_run_id)
        if record.platform in away:
            return report.issues.append(f"{record.deployment_id} at {record.platform}: {reason} It is not gone yet.")
        if record.platform != LOCAL:
            await self._hosting.remove(record, _REMOVE_SECONDS)
            await forget_hosted(self._records, ended)
        report.ended.append(f"{record.deployment_id} at {record.platform}: {reason}")

    async def _give_up(self, record: Deployment, report: SweepReport) -> None:
        """See to one whose run has ended without a word to its record: a run that ends well writes before it ends."""
        error = "Its flow run was cancelled, or broke off, before it was served; deploy the adapter again."
        if given_up := await self._note(record, status=DeploymentStatus.FAILED, error=error):
            report.ended.append(f"{record.deployment_id} at {record.platform}: {error}")
            await self._hosting.remove(record, _REMOVE_SECONDS)
            await forget_hosted(self._records, given_up)

    async def _see_it_there(self, record: Deployment, report: SweepReport) -> None:
        """Take over how a running deployment is now; what costs nothing and is gone is put there again."""
        host, name = await self._hosting.host(record.platform), self._hosting.name(record)
        hosted = await host.look(name)
        if hosted is None and not host.limits.bills:
            hosted = await host.deploy(await self._hosting.wanted(record))
        if hosted is None:
            shown = VENDORS[record.platform].display_name
            error = f"It is gone: it was taken off at {shown}."
            await self._note(record, status=DeploymentStatus.FAILED, error=error, hosted=None)
            report.issues.append(f"{record.deployment_id} is gone at {record.platform}")
        elif hosted.status is DeploymentStatus.FAILED:
            await self._note(record, status=DeploymentStatus.FAILED, error=hosted.reason or "The platform gave it up.")
        else:
            await self._note(record, **host_shows(hosted, record.hosted))

    async def _look_through(self, platform: str, report: SweepReport) -> None:
        """Remove what carries this studio's id and belongs to no record that wants it."""
        host = await self._hosting.host(platform)
        names = await host.names()
        # Read after the names: whatever is there had been written down before.
        wanted = await self._wanted_at(platform)
        for name in names:
            label = f"{name} at {platform}"
            if not is_hosted_by_studio(name, self._hosting.studio_id):
                report.strange.append(label)
            elif name in wanted or name in await self._wanted_at(platform):  # one list may have left it out
                report.kept.append(label)
            else:
                with self._telling(label, platform, set(), report.issues):
                    await host.remove(name)
                    left = await host.look(name)
                    (report.ended if left is None else report.issues).append(
                        label if left is None else f"{label} is being taken off, and still there"
                    )
        for record in await self._records.all():
            is_left = record.platform == platform and not record.is_wanted and record.hosted is not None
            if is_left and await host.look(self._hosting.name(record)) is None:
                await forget_hosted(self._records, record)

    async def _wanted_at(self, platform: str) -> set[str]:
        """Name what is wanted at a platform, and what nobody can say of whether it is."""
        wanted = [one for one in await self._records.all() if one.is_wanted and one.platform == platform]
        return {self._hosting.name(one) for one in (*wanted, *await self._records.unreadable())}

    async def _note(self, record: Deployment, **changes: Any) -> Deployment | None:
        """Change a record, and return it as it is then; None where it was changed meanwhile: it is looked at again."""
        if await self._read(record.deployment_id) != record:
            return None
        changed = record.model_copy(update=changes)
        if changed != record:
            await self._records.replace(changed)
        return changed
