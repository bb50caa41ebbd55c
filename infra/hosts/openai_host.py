"""What platforms with an OpenAI-compatible API have in common: how they are asked, and handed requests."""

from abc import ABC, abstractmethod

from infra.hosts.base import Door, Hosted
from infra.hosts.openai_door import OpenAIDoor
from infra.serving.questions import Answered
from peft_studio.deployments import DeploymentMetrics
from peft_studio.effect import Said
from peft_studio.errors import ResourceUnavailable


class OpenAIHost(ABC):
    """The half of a ``Host`` that asks."""

    def __init__(self, api: OpenAIDoor):
        self._openai = api

    @abstractmethod
    def headers(self) -> dict[str, str]:
        """Return what a request is let in with."""

    async def ask(self, hosted: Hosted, prompt: str, *, chat: bool, max_tokens: int, temperature: float) -> Answered:
        """Have the adapter answer a prompt."""
        door = self.door(hosted)
        return await self._openai.ask(door, prompt, chat=chat, max_tokens=max_tokens, temperature=temperature)

    async def say(self, hosted: Hosted, model: str, question: str | list[dict[str, str]], max_tokens: int) -> Said:
        """Have the adapter or its base answer greedily, with log-probabilities where the platform gives them."""
        return await self._openai.say(self.door(hosted), model, question, max_tokens)

    def door(self, hosted: Hosted) -> Door:
        """Return the deployment's own API; raises ``ResourceUnavailable`` until it has an address."""
        if hosted.endpoint is None:
            raise ResourceUnavailable("The deployment has no address before it has run once; try again in a minute.")
        return Door(hosted.endpoint, hosted.model or hosted.name, self.headers())

    async def metrics(self, hosted: Hosted) -> DeploymentMetrics | None:
        """Return None: many platforms tell no numbers."""
        return None
