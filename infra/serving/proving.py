"""The effect test of a deployment: its endpoint is asked what the adapter was asked at the end of its training."""

import asyncio
import logging
from pathlib import Path
from typing import Any

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


async def prove(endpoint: EndpointClient, deployment: Deployment) -> EffectTest:
    """Ask a loaded deployment and its base model, and judge; never raises because of what they say."""
    known = await asyncio.to_thread(read_probes, Path(deployment.adapter))
    try:
        async with asyncio.timeout(_SECONDS):
            if known is None:
                return await _alone(endpoint, deployment)
            served = await asyncio.gather(*(_served(endpoint, deployment, probe) for probe in known.probes))
            return judge(known, served)
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


async def _served(endpoint: EndpointClient, deployment: Deployment, probe: Probe) -> Served:
    name = deployment.deployment_id
    through_template = probe.messages is not None and deployment.chat
    asked: Any = probe.messages if through_template else probe.text
    base, adapter, as_asked = await asyncio.gather(
        endpoint.say(deployment.base_model, probe.ids, PROBE_TOKENS),
        endpoint.say(name, probe.ids, PROBE_TOKENS),
        endpoint.say(name, asked, PROBE_TOKENS),
    )
    return Served(base=base, adapter=adapter, asked=as_asked)


async def _alone(endpoint: EndpointClient, deployment: Deployment) -> EffectTest:
    async def ask(model: str) -> list[Said]:
        questions: list[Any] = [[{"role": "user", "content": text}] if deployment.chat else text for text in _ANYTHING]
        return await asyncio.gather(*(endpoint.say(model, question, PROBE_TOKENS) for question in questions))

    adapter, base = await asyncio.gather(ask(deployment.deployment_id), ask(deployment.base_model))
    return judge_alone(adapter, base)
