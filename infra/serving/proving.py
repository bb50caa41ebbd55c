"""The effect test of a deployment: its endpoint is asked what the adapter was asked at the end of its training."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from infra.serving.endpoint_client import EndpointClient
from infra.serving.records import Deployment
from peft_studio.effect import (
    PROBE_TOKENS,
    PROBES,
    EffectTest,
    Probe,
    Probes,
    Said,
    Served,
    Verdict,
    judge,
    judge_alone,
)
from peft_studio.errors import InvalidConfig, StudioError

log = logging.getLogger(__name__)
_SECONDS = 60.0
_ANYTHING = ("Hello", "What is the capital of France?", "Once upon a time")


class Place(Protocol):
    """Where a deployment and its base model are asked; each question is answered greedily."""

    async def served(self, probe: Probe) -> Served:
        """Ask what was asked at the end of training."""
        ...

    async def said(self, prompts: Sequence[str]) -> tuple[list[Said], list[Said] | None]:
        """Have the adapter and its base model answer prompts; None where the base model cannot be asked."""
        ...


async def prove(place: Place, adapter: Path) -> EffectTest:
    """Ask the deployment of an adapter (its folder) and its base model, and judge; never raises."""
    known = await asyncio.to_thread(read_probes, adapter)
    try:
        async with asyncio.timeout(_SECONDS):
            if known is None:
                return judge_alone(*await place.said(_ANYTHING))
            return judge(known, await asyncio.gather(*map(place.served, known.probes)))
    except TimeoutError:
        return EffectTest(verdict=None, reason=f"The endpoint was too busy to answer within {_SECONDS:.0f} seconds.")
    except InvalidConfig as error:
        if known is None:
            return EffectTest(verdict=None, reason=f"The endpoint does not take the probes: {error.message}")
        reason = f"The endpoint does not take what the adapter was trained on: {error.message}"
        return EffectTest(verdict=Verdict.DIVERGED, reason=reason)
    except StudioError as error:
        return EffectTest(verdict=None, reason=f"The endpoint could not be asked: {error.message}")


def read_probes(adapter: Path) -> Probes | None:
    """Read what is stored with an adapter; None where there is nothing that can be understood."""
    try:
        known = Probes.model_validate_json((adapter / PROBES).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        log.warning("The probes of %s cannot be read.", adapter)
        return None
    return known if known.probes else None


class AtEndpoint:
    """A deployment at an endpoint of this machine, which takes tokens, too."""

    def __init__(self, endpoint: EndpointClient, deployment: Deployment):
        self._endpoint = endpoint
        self._deployment = deployment

    async def served(self, probe: Probe) -> Served:
        """Ask by the question's tokens, and as users ask."""
        name, through_template = self._deployment.deployment_id, probe.messages is not None and self._deployment.chat
        asked: Any = probe.messages if through_template else probe.text
        base, adapter, as_asked = await asyncio.gather(
            self._endpoint.say(self._deployment.base_model, probe.ids, PROBE_TOKENS),
            self._endpoint.say(name, probe.ids, PROBE_TOKENS),
            self._endpoint.say(name, asked, PROBE_TOKENS),
        )
        return Served(base=base, adapter=adapter, asked=as_asked)

    async def said(self, prompts: Sequence[str]) -> tuple[list[Said], list[Said] | None]:
        """Have the adapter and its base model answer prompts."""

        async def ask(model: str) -> list[Said]:
            questions = [question_of(prompt, chat=self._deployment.chat) for prompt in prompts]
            return await asyncio.gather(*(self._endpoint.say(model, one, PROBE_TOKENS) for one in questions))

        return await ask(self._deployment.deployment_id), await ask(self._deployment.base_model)


def question_of(prompt: str, *, chat: bool) -> Any:
    """Return a prompt as it is asked, through the chat template or as it stands."""
    return [{"role": "user", "content": prompt}] if chat else prompt
