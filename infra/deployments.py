"""Stored adapters, served: what is asked for is checked, put on a platform, looked after and taken off again."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from infra.adapter_bases import base_of
from infra.adapter_records import AdapterRecords
from infra.cursors import read_cursor, write_cursor
from infra.platforms import usable
from infra.platforms.connections import Platforms
from infra.serving.load_times import LoadTimes
from infra.serving.local import LocalDeployments
from infra.serving.questions import Answered
from infra.serving.records import CHECK_SECONDS, PREFIX, Deployment
from infra.settings import Settings
from infra.uploaded_adapters import UploadedAdapters
from peft_studio.algorithm_table import METHODS
from peft_studio.deployments import DeploymentConfig, DeploymentMetrics, DeploymentStatus
from peft_studio.errors import Conflict, InvalidConfig, NotFound, ResourceUnavailable
from peft_studio.objectives import AIMS
from peft_studio.platforms import Feature

_THIS_MACHINE = (None, "local", "auto")


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
        local: LocalDeployments,
        settings: Settings,
        platforms: Platforms,
    ):
        self._adapters = adapters
        self._uploads = uploads
        self._local = local
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
        await self._check_platform(platform)
        _check_config(config)
        adapter = await self._adapters.get(adapter_id)
        if not METHODS[adapter.algorithm].served:
            raise _refused("adapter_id", f"the local endpoint does not serve {adapter.algorithm} adapters")
        if not AIMS[adapter.objective].writes:
            raise _refused("adapter_id", f"an adapter that was trained for {adapter.objective} writes no text")
        facts, chat = await asyncio.to_thread(base_of, adapter, self._uploads, self._settings)
        digits = uuid5(NAMESPACE_URL, f"peft-studio:deployment:{key}").hex if key else None
        if digits is not None:
            await self._refuse_another(PREFIX + digits, adapter_id)
        deployment = await self._local.create(
            adapter_id=adapter_id,
            adapter=str(Path(adapter.path).parent),
            base_model=facts.path or facts.id,
            revision=facts.revision,
            chat=chat,
            key=digits,
            config=config,
        )
        try:
            await self._adapters.get(adapter_id)  # it may just have been deleted: see AdapterRecords.delete
        except NotFound:
            await self._local.remove(deployment.deployment_id)
            raise
        return Created(deployment, await self._ready_at(deployment))

    async def get(self, deployment_id: str) -> Looked:
        """Return one deployment; raises ``NotFound``."""
        return await self._look(await self._local.get(deployment_id))

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
        return await self._local.prompt(deployment_id, prompt, max_tokens, temperature)

    async def remove(self, deployment_id: str) -> None:
        """Take a deployment off, and forget it once its endpoint has let go of it."""
        await self._local.remove(deployment_id)

    async def _look(self, deployment: Deployment) -> Looked:
        metrics = DeploymentMetrics()
        if deployment.status is DeploymentStatus.RUNNING:
            # One that has just died is not busy.
            with suppress(ResourceUnavailable, Conflict, NotFound):
                load = await self._local.load(deployment.deployment_id)
                metrics = DeploymentMetrics(
                    requests_per_minute=load.requests_per_minute, avg_latency_ms=load.avg_latency_ms or 0.0
                )
        return Looked(deployment, metrics)

    async def _refuse_another(self, deployment_id: str, adapter_id: str) -> None:
        """Raise ``Conflict`` where a key has made a deployment of another adapter."""
        with suppress(NotFound):
            if (await self._local.get(deployment_id)).adapter_id != adapter_id:
                raise Conflict(
                    "This Idempotency-Key was used before, with another adapter.",
                    field="Idempotency-Key",
                    deployment_id=deployment_id,
                )

    async def _check_platform(self, platform: str) -> None:
        if issue := usable.unknown(platform, Feature.INFERENCE):
            raise _refused("platform", issue)
        connected = await self._platforms.connected(usable.outside(platform))
        usable.check(platform, Feature.INFERENCE, connected, "platform")

    async def _ready_at(self, deployment: Deployment) -> datetime | None:
        base = deployment.base_model, deployment.revision
        others = await self._local.list(DeploymentStatus.RUNNING)
        if any((other.base_model, other.revision) == base for other in others):
            seconds: float | None = 2 * CHECK_SECONDS  # the model is loaded, and the worker looks every so often
        else:
            seconds = await asyncio.to_thread(self._load_times.estimate, deployment.base_model)
        return None if seconds is None else deployment.created_at + timedelta(seconds=ceil(seconds))


def _check_config(config: DeploymentConfig) -> None:
    """Refuse what this machine cannot honour."""
    if config.instance_type not in _THIS_MACHINE:
        raise _refused(
            "instance_type",
            f"this machine is no {config.instance_type!r}; use 'local', or leave the field out",
        )
    if config.max_replicas > 1:
        raise _refused("max_replicas", "this machine serves one replica, which answers many requests at a time")
    if config.auto_scaling:
        raise _refused("auto_scaling", "this machine cannot become more; set it to false")


def _refused(field: str, issue: str) -> InvalidConfig:
    return InvalidConfig(f"{field}: {issue}", field=field, issue=issue)
