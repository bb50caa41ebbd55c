"""A keeper at work in a test, and what is deployed through it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from infra.serving.keeper import Keeper
from infra.serving.local import LocalDeployments
from infra.serving.records import Deployment, DeploymentsInMemory
from infra.settings import Settings
from peft_studio.deployments import DeploymentStatus


class Machine:
    """A keeper at work, and what is deployed through it."""

    def __init__(self, settings: Settings, base: Path, adapters: Mapping[str, Path]):
        self.records = DeploymentsInMemory()
        self.deployments = LocalDeployments(self.records)
        self.keeper = Keeper(settings, self.records)
        self._base = base
        self._adapters = adapters

    async def deploy(self, kind: str, **changes: Any) -> Deployment:
        arguments = {"adapter": str(self._adapters[kind]), "base_model": str(self._base), **changes}
        return await self.deployments.create(f"adapter_{kind}", **arguments)

    async def until(self, condition: Callable[[], Awaitable[object]], seconds: float = 60) -> None:
        """Let the keeper check until a condition holds."""
        deadline = time.monotonic() + seconds
        while not await condition():
            assert time.monotonic() < deadline, [record.model_dump() for record in await self.records.all()]
            await self.keeper.check()
            await asyncio.sleep(0.05)

    async def running(self, deployment: Deployment) -> Deployment:
        async def runs() -> bool:
            return (await self.records.get(deployment.deployment_id)).status is DeploymentStatus.RUNNING

        await self.until(runs)
        return await self.records.get(deployment.deployment_id)

    async def failed(self, deployment: Deployment) -> str:
        async def fails() -> bool:
            return (await self.records.get(deployment.deployment_id)).status is DeploymentStatus.FAILED

        await self.until(fails)
        return str((await self.records.get(deployment.deployment_id)).error)

    async def says(self, deployment: Deployment) -> str:
        answer = await self.deployments.prompt(deployment.deployment_id, "the red cat", 12, temperature=0)
        assert answer.tokens_generated > 0
        return answer.text
