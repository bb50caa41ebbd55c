"""Stored adapters, served: what is asked for is checked, put on a platform, looked after and taken off again."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

from infra.adapters.bases import base_of
from infra.adapters.records import AdapterRecords
from infra.adapters.uploaded import UploadedAdapters
from infra.cursors import read_cursor, write_cursor
from infra.deploying.admission import (
    Exports,
    check_for_this_machine,
    check_host,
    check_served_here,
    files_for,
    refused,
)
from infra.deploying.bringing import LOCAL
from infra.deploying.hosting import Hosting
from infra.deploying.runs import DeployRuns
from infra.platforms import usable
from infra.platforms.connections import Platforms
from infra.platforms.vendors import vendor_named
from infra.serving.endpoint_client import Forwarded
from infra.serving.load_times import LoadTimes
from infra.serving.local import LocalDeployments
from infra.serving.questions import Answered
from infra.serving.records import CHECK_SECONDS, PREFIX, Deployment, Deployments, enter
from infra.settings import Settings
from peft_studio.adapters import Adapter
from peft_studio.deployments import DeploymentConfig, DeploymentMetrics, DeploymentStatus, MeasuredBy
from peft_studio.errors import Conflict, NotFound, ResourceUnavailable, StudioError
from peft_studio.events import now
from peft_studio.platforms import Feature

_REMOVE_SECONDS = 20.0
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Created:
    """A deployment that was asked for, and when it will likely answer; None where nothing is known."""

    deployment: Deployment
    ready_at: datetime | None


@dataclass(frozen=True)
class Looked:
    """A deployment, and how busy it is."""

    deployment: Deployment
    metrics: DeploymentMetrics


@dataclass(frozen=True)
class DeploymentPage:
    """Some deployments, newest first."""

    deployments: list[Looked]
    next_cursor: str | None


class AdapterDeployments:
    """The deployments of stored adapters; of the platforms, ``local`` is this machine."""

    def __init__(
        self,
        adapters: AdapterRecords,
        uploads: UploadedAdapters,
        records: Deployments,
        runs: DeployRuns,
        hosting: Hosting,
        exports: Exports,
        settings: Settings,
        platforms: Platforms,
    ):
        self._adapters = adapters
        self._uploads = uploads
        self._records = records
        self._local = LocalDeployments(records)
        self._runs = runs
        self._hosting = hosting
        self._exports = exports
        self._settings = settings
        self._platforms = platforms
        self._load_times = LoadTimes(settings.data_dir)

    async def create(
        self, adapter_id: str, platform: str, config: DeploymentConfig, *, key: str | None = None
    ) -> Created:
        """
        Ask for an adapter to be served, and return at once; ``key`` makes the same request the same deployment.

        Raises ``InvalidConfig`` with the field that cannot be honoured, and ``PlatformNotConnected``.
        """
        platform = await self._check_platform(platform)
        adapter = await self._adapters.get(adapter_id)
        if adapter.lineage and (promotion := adapter.lineage.promotion) and promotion.is_refused:
            raise Conflict(
                f"The promotion gate of its job has refused this adapter. {promotion.reason} An admin can override "
                f"that with POST /jobs/{adapter.job_id}/promote.",
                adapter_id=adapter_id,
                job_id=adapter.job_id,
            )
        digits = uuid5(NAMESPACE_URL, f"peft-studio:deployment:{key}").hex if key else uuid4().hex
        wanted = await self._described(PREFIX + digits, adapter, platform, config)
        await self._refuse_another(wanted)
        deployment = await enter(self._records, wanted)
        try:
            await self._adapters.get(adapter_id)  # it may just have been deleted: see AdapterRecords.delete
            run_id = await self._runs.create(deployment)
        except BaseException:
            if deployment is wanted:
                await self._records.delete(deployment.deployment_id)
            raise
        if deployment.flow_run_id != run_id:
            deployment = (await self._records.get(deployment.deployment_id)).model_copy(update={"flow_run_id": run_id})
            await self._records.replace(deployment)
        return Created(deployment, await self._ready_at(deployment))

    async def get(self, deployment_id: str) -> Looked:
        """Return one deployment; raises ``NotFound``."""
        return await self._look(await self._records.get(deployment_id))

    async def list(
        self, status: DeploymentStatus | None = None, limit: int = 20, cursor: str | None = None
    ) -> DeploymentPage:
        """Return deployments, all or those in one state, newest first."""
        behind = read_cursor(cursor) if cursor is not None else None
        places = {(record.created_at, record.deployment_id): record for record in await self._local.list(status)}
        found = sorted((place for place in places if behind is None or place < behind), reverse=True)
        looked = await asyncio.gather(*(self._look(places[place]) for place in found[:limit]))
        return DeploymentPage(looked, write_cursor(found[limit - 1]) if len(found) > limit else None)

    async def test(self, deployment_id: str, prompt: str, max_tokens: int, temperature: float) -> Answered:
        """Have a deployment answer a prompt; raises ``InvalidConfig`` with the field that the model cannot take."""
        deployment = await self._records.get(deployment_id)
        if deployment.platform == LOCAL:
            return await self._local.prompt(deployment_id, prompt, max_tokens, temperature)
        return await self._hosting.prompt(deployment, prompt, max_tokens, temperature)

    async def running(self) -> Sequence[Deployment]:
        """Return those that can be asked, newest first."""
        return await self._local.list(DeploymentStatus.RUNNING)

    async def forward(self, path: str, body: Mapping[str, Any]) -> Forwarded:
        """
        Hand a request in OpenAI's form on to whoever serves its ``model``: an adapter, or a deployment, by its id.

        Raises ``NotFound`` where nobody does.
        """
        model = body["model"]
        serving = next((one for one in await self.running() if model in (one.adapter_id, one.deployment_id)), None)
        if serving is None:
            raise NotFound(
                f"The model {model[:100]!r} is not deployed: POST /api/v1/deployments with its adapter_id.",
                field="model",
            )
        if serving.platform == LOCAL:
            return await self._local.forward(serving, path, body)
        return await self._hosting.forward(serving, path, body)

    async def renew(self, deployment_id: str, hours: float | None) -> Looked:
        """
        Have a deployment served for so many hours from now, or for as long as it was asked for at first.

        One without an end keeps having none, unless hours are given.
        """
        deployment = await self._records.get(deployment_id)
        if not deployment.is_wanted:
            raise Conflict(
                f"The deployment is {deployment.status}; deploy the adapter again.",
                deployment_id=deployment_id,
                status=deployment.status,
            )
        if hours is None and deployment.expires_at is None:
            return await self._look(deployment)
        hours = hours or deployment.config.lease_hours or self._settings.lease_hours
        changes = {"expires_at": now() + timedelta(hours=hours), "warning": None}
        deployment = deployment.model_copy(update=changes)
        await self._records.replace(deployment)
        return await self._look(deployment)

    async def remove(self, deployment_id: str) -> None:
        """
        Take a deployment off, and forget it once its platform shows nothing of it any more.

        Raises ``ResourceUnavailable`` where that takes too long: it is stopped then, and remembered.
        """
        deployment = await self._local.stop(deployment_id)
        if deployment.flow_run_id is not None:
            await self._runs.cancel(deployment.flow_run_id)
        if deployment.platform == LOCAL:
            return await self._local.remove(deployment_id)
        deadline = time.monotonic() + _REMOVE_SECONDS
        while deployment.flow_run_id is not None and not await self._runs.is_over(deployment.flow_run_id):
            if time.monotonic() > deadline:
                with suppress(StudioError):  # its run may never get to it: no worker may be there
                    await self._hosting.remove(deployment, 0.0)
                raise ResourceUnavailable(
                    "The deployment's flow run is still being stopped; delete the deployment again in a moment.",
                    deployment_id=deployment_id,
                )
            await asyncio.sleep(_LOOK_SECONDS)
        await self._local.stop(deployment_id)  # said again: the run may just have been writing what it had found
        await self._hosting.remove(deployment, deadline - time.monotonic())
        await self._records.delete(deployment_id)

    async def _described(
        self, deployment_id: str, adapter: Adapter, platform: str, config: DeploymentConfig
    ) -> Deployment:
        """Return the record of what is asked for, once it is checked."""
        is_here = platform == LOCAL
        if is_here:
            check_for_this_machine(config)
            check_served_here(adapter, self._settings)
        facts, chat = await asyncio.to_thread(base_of, adapter, self._uploads, self._settings)
        wanted = Deployment(
            deployment_id=deployment_id,
            adapter_id=adapter.id,
            adapter=str(Path(adapter.path).parent),
            base_model=(facts.path or facts.id) if is_here else facts.id,
            revision=facts.revision,
            platform=platform,
            config=config,
            chat=chat,
            files=None if is_here else await files_for(platform, adapter, facts, self._exports),
        )
        bills = False
        if not is_here:
            host = await self._hosting.host(platform)
            check_host(platform, host, await self._hosting.wanted(wanted), converted=wanted.files is not None)
            bills = host.limits.bills
        hours = config.lease_hours or (self._settings.lease_hours if bills else None)
        return wanted.model_copy(update={"expires_at": now() + timedelta(hours=hours) if hours else None})

    async def _look(self, deployment: Deployment) -> Looked:
        if deployment.platform != LOCAL:
            return Looked(deployment, await self._hosting.metrics(deployment))
        load = None
        if deployment.status is DeploymentStatus.RUNNING:
            # One that has just died tells nothing.
            with suppress(ResourceUnavailable, Conflict, NotFound):
                load = await self._local.load(deployment.deployment_id)
        measured: dict[str, Any] = {} if load is None else {**load.model_dump(), "measured_by": MeasuredBy.PLATFORM}
        return Looked(deployment, DeploymentMetrics(**measured, cost_per_hour=0.0))

    async def _refuse_another(self, wanted: Deployment) -> None:
        """Raise ``Conflict`` where a key has made a deployment of another adapter, or one elsewhere."""
        with suppress(NotFound):
            known = await self._records.get(wanted.deployment_id)
            if (known.adapter_id, known.platform) != (wanted.adapter_id, wanted.platform):
                raise Conflict(
                    "This Idempotency-Key was used before, with another adapter or platform.",
                    field="Idempotency-Key",
                    deployment_id=wanted.deployment_id,
                )

    async def _check_platform(self, platform: str) -> str:
        """Return the platform's own name."""
        if issue := usable.unknown(platform, Feature.INFERENCE):
            raise refused("platform", issue)
        connected = await self._platforms.connected(usable.outside(platform))
        usable.check(platform, Feature.INFERENCE, connected, "platform")
        vendor = vendor_named(platform)
        return vendor.name if vendor else platform

    async def _ready_at(self, deployment: Deployment) -> datetime | None:
        if deployment.platform != LOCAL:
            return None
        base = deployment.base_model, deployment.revision
        others = await self._local.list(DeploymentStatus.RUNNING)
        if any((other.base_model, other.revision) == base for other in others):
            seconds: float | None = 2 * CHECK_SECONDS  # the model is loaded, and the worker looks every so often
        else:
            seconds = await asyncio.to_thread(self._load_times.estimate, deployment.base_model)
        return None if seconds is None else deployment.created_at + timedelta(seconds=ceil(seconds))
