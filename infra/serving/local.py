"""Deployments on this machine: asked for here, brought about by the keeper in the worker's process."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from infra.serving.endpoint_client import EndpointClient, Forwarded
from infra.serving.meter import Load
from infra.serving.questions import Answered
from infra.serving.records import PREFIX, Deployment, Deployments, DeploymentsInPrefect, enter
from infra.settings import LocalEngine
from peft_studio.deployments import DeploymentConfig, DeploymentStatus
from peft_studio.errors import Conflict, InvalidConfig, ResourceUnavailable

_POLL_SECONDS = 0.2
_REMOVE_SECONDS = 20.0


class LocalDeployments:
    """The deployments of the platform ``local``."""

    def __init__(self, records: Deployments | None = None):
        self._records = records or DeploymentsInPrefect()

    async def create(
        self,
        adapter_id: str,
        adapter: str,
        base_model: str,
        revision: str | None = None,
        *,
        chat: bool = True,
        key: str | None = None,
        config: DeploymentConfig | None = None,
    ) -> Deployment:
        """
        Ask for an adapter (its folder) to be served; ``chat``: prompts go through the chat template.

        With the same ``key`` (32 hex digits, say) there is one deployment, however often it is created; one that
        failed or was stopped starts over.
        """
        wanted = Deployment(
            deployment_id=PREFIX + (key or uuid4().hex),
            adapter_id=adapter_id,
            adapter=adapter,
            base_model=base_model,
            revision=revision,
            chat=chat,
            config=config or DeploymentConfig(),
        )
        return await enter(self._records, wanted)

    async def get(self, deployment_id: str) -> Deployment:
        """Return one; raises ``NotFound``."""
        return await self._records.get(deployment_id)

    async def list(self, status: DeploymentStatus | None = None) -> Sequence[Deployment]:
        """Return all, or those in one state, newest first."""
        return [record for record in reversed(await self._records.all()) if status in (None, record.status)]

    async def serving(self, adapter_id: str) -> Sequence[str]:
        """Return the ids of the deployments that serve an adapter, or are to."""
        records = await self._records.all()
        return [record.deployment_id for record in records if record.adapter_id == adapter_id and record.is_wanted]

    async def wait(self, deployment_id: str, seconds: float) -> Deployment:
        """Return a deployment once it runs; raises ``InvalidConfig`` where it failed; gives up in the end."""
        deadline = time.monotonic() + seconds
        while True:
            deployment = await self._records.get(deployment_id)
            if deployment.status is DeploymentStatus.RUNNING:
                return deployment
            if not deployment.is_wanted:
                reason = deployment.error or f"it is {deployment.status}"
                raise InvalidConfig(f"The adapter could not be deployed: {reason}", issue=reason)
            if time.monotonic() > deadline:
                raise ResourceUnavailable(
                    f"The deployment is not running after {seconds:.0f} seconds; the worker's log and its endpoints' "
                    "logs beside it may say why. A worker other than the studio's own serves no deployments."
                )
            await asyncio.sleep(_POLL_SECONDS)

    async def stop(self, deployment_id: str) -> Deployment:
        """Have a deployment no longer served; its record is kept, and ``create`` with its key starts it again."""
        deployment = await self._records.get(deployment_id)
        if deployment.is_wanted:
            deployment = deployment.model_copy(update={"status": DeploymentStatus.STOPPED})
            await self._records.replace(deployment)
        return deployment

    async def remove(self, deployment_id: str) -> None:
        """Stop a deployment and forget it once its endpoint has let go of it."""
        deadline = time.monotonic() + _REMOVE_SECONDS
        while True:
            # Said again in every round: the keeper may just have been writing what it had found before.
            deployment = await self.stop(deployment_id)
            if await _is_gone(deployment):
                return await self._records.delete(deployment_id)
            if time.monotonic() > deadline:
                raise ResourceUnavailable("The endpoint still serves the adapter; try again in a moment.")
            await asyncio.sleep(_POLL_SECONDS)

    async def prompt(
        self, deployment_id: str, prompt: str, max_tokens: int = 100, temperature: float = 0.7
    ) -> Answered:
        """Have a deployment answer a prompt; raises ``InvalidConfig`` with the field where the model cannot take it."""
        deployment = await self._records.get(deployment_id)
        async with EndpointClient(_address(deployment)) as endpoint:
            return await endpoint.ask(
                deployment_id, prompt, chat=deployment.chat, max_tokens=max_tokens, temperature=temperature
            )

    async def forward(self, serving: Deployment, path: str, body: Mapping[str, Any]) -> Forwarded:
        """Hand a request in OpenAI's form on to a running deployment."""
        return await EndpointClient(_address(serving)).forward(path, {**body, "model": serving.deployment_id})

    async def load(self, deployment_id: str) -> Load | None:
        """Return how busy a deployment is; vLLM tells it of all of a base model's together, from the second look on."""
        deployment = await self._records.get(deployment_id)
        async with EndpointClient(_address(deployment)) as endpoint:
            if deployment.engine is LocalEngine.VLLM:
                return await endpoint.load_of_all()
            return await endpoint.load_of(deployment_id)


def _address(deployment: Deployment) -> str:
    if deployment.status is not DeploymentStatus.RUNNING or deployment.endpoint is None:
        raise Conflict(
            f"The deployment is {deployment.status}, not running.",
            deployment_id=deployment.deployment_id,
            status=deployment.status,
        )
    return deployment.endpoint


async def _is_gone(deployment: Deployment) -> bool:
    if deployment.endpoint is None:
        return True
    try:
        async with EndpointClient(deployment.endpoint) as endpoint:
            return deployment.deployment_id not in await endpoint.adapters()
    except ResourceUnavailable:
        return True
