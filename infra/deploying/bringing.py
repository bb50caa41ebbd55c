"""
Bringing a deployment about, step by step, and clearing away what is left of one that does not come to a good end.

Each step reads the record anew and may be done twice: what a killed process has done is found, not done again.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from infra.deploying.hosting import Hosting
from infra.hosts.base import Host, Hosted
from infra.serving.local import LocalDeployments
from infra.serving.proving import prove, question_of
from infra.serving.records import Deployment, Deployments
from infra.settings import Settings
from peft_studio.deployments import DeploymentStatus
from peft_studio.effect import PROBE_TOKENS, Probe, Said, Served
from peft_studio.errors import (
    Conflict,
    DeployFailed,
    InvalidConfig,
    NotFound,
    RateLimitExceeded,
    ResourceUnavailable,
    StudioError,
)

T = TypeVar("T")
log = logging.getLogger(__name__)
LOCAL = "local"
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 10.0
_PLACE_SECONDS = 300.0  # that a platform is asked again which is away, or has no room
_CLEAR_SECONDS = 120.0
_PROOF, _PROOF_TOKENS = "Hello", 16
_PASSING = (ResourceUnavailable, RateLimitExceeded)


class Bringing:
    """Brings one deployment about; steps raise ``Conflict`` where it was taken off meanwhile."""

    def __init__(self, deployment_id: str, records: Deployments, hosting: Hosting, settings: Settings):
        self._id = deployment_id
        self._records = records
        self._hosting = hosting
        self._seconds = settings.deploy_minutes * 60

    async def place(self) -> None:
        """Ask the platform for it; what was made half before is gone on with."""
        record = await self._wanted()
        if record.platform == LOCAL:
            return
        host = await self._hosting.host(record.platform)
        wanted = await self._hosting.wanted(record)
        hosted = await self._until(min(self._seconds, _PLACE_SECONDS), lambda: host.deploy(wanted))
        await self._note(host_shows(hosted, record.hosted))

    async def wait(self) -> None:
        """Wait until it answers a prompt; raises ``DeployFailed`` where the platform gives up, or it takes too long."""
        record = await self._wanted()
        if record.platform == LOCAL:
            with suppress(InvalidConfig, NotFound):  # why, says the record
                await LocalDeployments(self._records).wait(self._id, self._seconds)
            await self._wanted()
            return
        host = await self._hosting.host(record.platform)
        hosted = await self._until(self._seconds, lambda: self._ready(record, host))
        await self._until(self._seconds, lambda: self._answers(record, host, hosted))

    async def prove(self) -> None:
        """See that the adapter does there what it did at the end of its training; then it runs."""
        record = await self._wanted()
        if record.platform == LOCAL or record.hosted is None:
            return  # who keeps the endpoints of this machine has done so
        host = await self._hosting.host(record.platform)
        effect = await prove(_AtHost(host, record.hosted, chat=record.chat), Path(record.adapter))
        await self._note({"status": DeploymentStatus.RUNNING, "effect": effect, "error": None})

    async def give_up(self, error: str) -> None:
        """Say why it failed, and take off what is there."""
        await self._end({"status": DeploymentStatus.FAILED, "error": error}, "error", error)

    async def withdraw(self, reason: str) -> None:
        """Stop it, and take off what is there; where it was deleted meanwhile nothing of it may stay, either."""
        await self._end({"status": DeploymentStatus.STOPPED, "reason": reason}, "reason", reason)

    async def _end(self, changes: dict[str, Any], field: str, text: str) -> None:
        """Change the record first: from then on the studio's clean-up knows that nothing there is wanted."""
        try:
            record = await self._records.get(self._id)
        except NotFound:
            return  # who has deleted it has seen it gone, and the clean-up sees what came after
        except Conflict as unreadable:
            return log.error("What %s has placed is left to a person: %s", self._id, unreadable.message)
        if record.is_wanted:
            record = record.model_copy(update=changes)
            await self._records.replace(record)
        if record.platform == LOCAL:
            return
        try:
            await self._hosting.remove(record, _CLEAR_SECONDS)
        except StudioError as left:
            log.warning("What %s has left is not gone: %s", self._id, left.message)
            await self._records.replace(record.model_copy(update={field: f"{text} {left.message}"}))
        else:
            await forget_hosted(self._records, record)

    async def _wanted(self) -> Deployment:
        try:
            record = await self._records.get(self._id)
        except NotFound:
            raise Conflict("The deployment was deleted meanwhile.", deployment_id=self._id) from None
        if record.status is DeploymentStatus.FAILED:
            raise DeployFailed(record.error)
        if not record.is_wanted:
            raise Conflict("The deployment was stopped meanwhile.", deployment_id=self._id)
        return record

    async def _note(self, changes: dict[str, Any]) -> None:
        record = await self._wanted()
        if (changed := record.model_copy(update=changes)) != record:
            await self._records.replace(changed)

    async def _ready(self, record: Deployment, host: Host) -> Hosted | None:
        """Return it once it runs, or rests as it may."""
        hosted = await host.look(self._hosting.name(record))
        if hosted is None:
            raise DeployFailed("The platform does not know the deployment any more: somebody has taken it off there.")
        hosted = hosted.after(record.hosted)
        hosted = hosted.after((await self._wanted()).hosted)
        await self._note(host_shows(hosted, None))
        if hosted.status is DeploymentStatus.FAILED:
            raise DeployFailed(hosted.reason or "The platform says that it has failed, and not why.")
        rests = hosted.status is DeploymentStatus.STOPPED and record.config.min_replicas == 0
        return hosted if hosted.status is DeploymentStatus.RUNNING or rests else None

    async def _answers(self, record: Deployment, host: Host, hosted: Hosted) -> bool:
        await self._wanted()
        await host.ask(hosted, _PROOF, chat=record.chat, max_tokens=_PROOF_TOKENS, temperature=0)
        return True

    async def _until(self, seconds: float, step: Callable[[], Awaitable[T | None]]) -> T:
        """Go on until there is something; a platform that is away, busy or waking up is waited for."""
        deadline = time.monotonic() + seconds
        pause, why = _FIRST_PAUSE_SECONDS, "it is still being set up."
        while True:
            wait = pause
            try:
                if found := await step():
                    return found
            except _PASSING as error:
                why = error.message
                wait = max(pause, float(error.details.get("retry_after_seconds") or 0))
            if time.monotonic() + wait > deadline:
                raise DeployFailed(f"The adapter is not served after {seconds / 60:g} minutes: {why}")
            await asyncio.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


class _AtHost:
    """A deployment at a platform, which is asked as users ask."""

    def __init__(self, host: Host, hosted: Hosted, *, chat: bool):
        self._host = host
        self._hosted = hosted
        self._chat = chat

    async def served(self, probe: Probe) -> Served:
        """Ask the adapter and its base model what was asked at the end of training."""
        asked: Any = probe.messages if probe.messages is not None and self._chat else probe.text
        adapter = await self._say(self._hosted.model, asked)
        return Served(base=await self._of_base(asked), adapter=adapter, asked=adapter)

    async def said(self, prompts: Sequence[str]) -> tuple[list[Said], list[Said] | None]:
        """Have the adapter and its base model answer prompts."""
        questions = [question_of(prompt, chat=self._chat) for prompt in prompts]
        adapter = [await self._say(self._hosted.model, one) for one in questions]
        base = [said for one in questions if (said := await self._of_base(one))]
        return adapter, base or None

    async def _say(self, model: str | None, question: Any) -> Said:
        return await self._host.say(self._hosted, model or self._hosted.name, question, PROBE_TOKENS)

    async def _of_base(self, question: Any) -> Said | None:
        return await self._say(self._hosted.base, question) if self._hosted.base else None


async def forget_hosted(records: Deployments, record: Deployment) -> None:
    """Write down that nothing of a deployment is at its platform any more; one that was changed meanwhile is left."""
    with suppress(NotFound):
        if record.hosted is not None and await records.get(record.deployment_id) == record:
            await records.replace(record.model_copy(update={"hosted": None}))


def host_shows(hosted: Hosted, before: Hosted | None) -> dict[str, Any]:
    """Return what of a record follows from what its platform shows now, and has shown before."""
    hosted = hosted.after(before)
    return {"hosted": hosted, "endpoint": hosted.endpoint, "reason": hosted.reason or None}
