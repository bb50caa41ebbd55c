"""What platforms serve for this studio: found by its record, asked wherever it is, and taken off with a proof."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from infra.credentials import CredentialStore
from infra.hosts.base import Host, Hosted, Wanted
from infra.hosts.openai_door import OpenAIDoor
from infra.hosts.table import HOSTS
from infra.machines.ledger import studio_id
from infra.platforms.connections import base_url, not_connected
from infra.platforms.vendors import VENDORS
from infra.providers.base import Account
from infra.registries.publications import publications_of
from infra.serving.endpoint_client import Forwarded
from infra.serving.meter import Meter
from infra.serving.questions import Answered
from infra.serving.records import Deployment, Unreadable
from infra.settings import Settings
from peft_studio.adapter_config import CONFIG
from peft_studio.deployments import DeploymentMetrics, DeploymentStatus, MeasuredBy
from peft_studio.errors import Conflict, InvalidConfig, RateLimitExceeded, ResourceUnavailable, StudioError
from peft_studio.machine_names import hosted_name
from peft_studio.model_files import read_object
from peft_studio.registries import HuggingFaceRegistry, PublicationStatus

_POLL_SECONDS = 1.0
_METRICS_SECONDS = 6.0


class Hosting:
    """The platforms that this studio is connected to, by its records of deployments."""

    def __init__(self, credentials: CredentialStore, settings: Settings):
        self._credentials = credentials
        self._settings = settings
        self._meter = Meter()

    @property
    def studio_id(self) -> str:
        """What the names of all that this studio makes carry."""
        return studio_id(self._settings)

    def name(self, deployment: Deployment | Unreadable) -> str:
        """Return what a deployment is called at its platform."""
        return hosted_name(self.studio_id, deployment.deployment_id)

    async def host(self, platform: str) -> Host:
        """Return a platform for one piece of work; raises ``PlatformNotConnected``."""
        return HOSTS[platform](await self._account(platform))

    async def connected(self) -> list[str]:
        """Name the platforms that something of ours can be at."""
        return sorted(set(await self._credentials.connections()) & HOSTS.keys())

    async def wanted(self, deployment: Deployment) -> Wanted:
        """Return all that a platform wants to know of a deployment."""
        return await asyncio.to_thread(self._wanted, deployment)

    async def prompt(self, deployment: Deployment, prompt: str, max_tokens: int, temperature: float) -> Answered:
        """Have a running deployment answer; raises ``InvalidConfig`` with the field that it does not take."""
        host, hosted = await self.host(deployment.platform), running(deployment)
        answer = await host.ask(hosted, prompt, chat=deployment.chat, max_tokens=max_tokens, temperature=temperature)
        self._meter.count(deployment.deployment_id, answer.latency_ms / 1e3)
        return answer

    async def forward(self, deployment: Deployment, path: str, body: Mapping[str, Any]) -> Forwarded:
        """Hand a request in OpenAI's form on to a running deployment."""
        account, hosted = await self._account(deployment.platform), running(deployment)
        if (door := HOSTS[deployment.platform](account).door(hosted)) is None:
            issue = f"{VENDORS[deployment.platform].display_name} has no OpenAI-compatible API"
            raise InvalidConfig(
                f"model: {issue}; use POST /api/v1/deployments/{deployment.deployment_id}/test.",
                field="model",
                issue=issue,
            )
        started = time.monotonic()
        answer = await OpenAIDoor(deployment.platform, account).forward(door, path, body)
        return replace(answer, ended=lambda: self._meter.count(deployment.deployment_id, time.monotonic() - started))

    async def metrics(self, deployment: Deployment) -> DeploymentMetrics:
        """
        Return how busy a deployment is, and what it costs.

        Where its platform does not tell how busy it is, that is what it was asked through this process of the studio.
        """
        metrics = None
        if deployment.status is DeploymentStatus.RUNNING and deployment.hosted is not None:
            # What it costs is known even where it cannot be asked.
            with suppress(StudioError, TimeoutError):
                async with asyncio.timeout(_METRICS_SECONDS):
                    metrics = await (await self.host(deployment.platform)).metrics(deployment.hosted)
            if metrics is None:
                load = self._meter.load(deployment.deployment_id)
                metrics = DeploymentMetrics(**load.model_dump(), measured_by=MeasuredBy.STUDIO)
        return (metrics or DeploymentMetrics()).model_copy(update={"cost_per_hour": _price(deployment)})

    async def remove(self, deployment: Deployment, seconds: float) -> None:
        """
        Take a deployment off its platform, and return once that shows nothing of it any more.

        Raises ``ResourceUnavailable`` where it still does, or did not answer, when the time is over, and
        ``PlatformNotConnected``: what is there can then not be seen.
        """
        host, name, deadline = await self.host(deployment.platform), self.name(deployment), time.monotonic() + seconds
        while True:
            try:
                await host.remove(name)
                if (left := await host.look(name)) is None:
                    return
                issue = left.reason or f"it is {left.status}"
            except (ResourceUnavailable, RateLimitExceeded) as error:
                issue = error.message
            if time.monotonic() > deadline:
                shown = VENDORS[deployment.platform].display_name
                raise ResourceUnavailable(
                    f"{shown} still has the deployment ({issue}); the studio goes on taking it off every few minutes. "
                    f"Delete it again in a moment, or look for {name!r} there.",
                    platform=deployment.platform,
                    name=name,
                    issue=issue,
                )
            await asyncio.sleep(_POLL_SECONDS)

    async def _account(self, platform: str) -> Account:
        kept, vendor = await self._credentials.get(platform), VENDORS[platform]
        if kept is None:
            raise not_connected(vendor, "platform")
        values = kept.reveal()
        return account_of(platform, self._settings, values)

    def _wanted(self, deployment: Deployment) -> Wanted:
        folder = Path(deployment.adapter)
        made = read_object(Path(deployment.files or folder) / CONFIG) or read_object(folder / CONFIG) or {}
        modules = made.get("target_modules") or []
        registry, commit = _published(folder)
        return Wanted(
            name=self.name(deployment),
            folder=Path(deployment.files or folder),
            base_model=deployment.base_model,
            revision=deployment.revision,
            rank=int(made.get("r") or 0),
            target_modules=[modules] if isinstance(modules, str) else sorted(modules),
            repository=registry,
            commit=commit,
            config=deployment.config,
        )


def account_of(platform: str, settings: Settings, values: Mapping[str, str]) -> Account:
    """Return what a platform is asked with that was connected with these credentials."""
    return Account(base_url(VENDORS[platform], settings, values), values, settings.hosted / platform)


def running(deployment: Deployment) -> Hosted:
    """Return a running deployment as its platform shows it; raises ``Conflict`` where it does not run."""
    if deployment.status is not DeploymentStatus.RUNNING or deployment.hosted is None:
        raise Conflict(
            f"The deployment is {deployment.status}, not running.",
            deployment_id=deployment.deployment_id,
            status=deployment.status,
        )
    return deployment.hosted


def _price(deployment: Deployment) -> float | None:
    """Return what an hour costs; what has a lease may cost money, and is then unknown unless its platform tells."""
    if deployment.hosted is not None and deployment.hosted.hourly_rate is not None:
        return deployment.hosted.hourly_rate
    is_over = not deployment.is_wanted and deployment.hosted is None
    return 0.0 if deployment.expires_at is None or is_over else None


def _published(folder: Path) -> tuple[str | None, str | None]:
    """Return the repository on the Hub that an adapter is published in, and the commit."""
    for one in publications_of(folder):
        if one.status is PublicationStatus.PUBLISHED and isinstance(one.registry, HuggingFaceRegistry):
            return one.registry.repository, one.revision
    return None, None
