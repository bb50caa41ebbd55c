"""How busy a server is, from the counters that it shows to Prometheus."""

import re
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass

from infra.serving.meter import Load
from infra.vendor_http import Call, ask
from peft_studio.deployments import DeploymentMetrics, MeasuredBy

_WINDOW_SECONDS = 60.0
_SECONDS = 5.0


@dataclass(frozen=True)
class Counters:
    """Two counters' names: the requests that were answered, and the seconds that they took, all together."""

    requests: str
    seconds: str


VLLM = Counters("vllm:e2e_request_latency_seconds_count", "vllm:e2e_request_latency_seconds_sum")
LORAX = Counters("lorax_request_duration_count", "lorax_request_duration_sum")


@dataclass(frozen=True)
class _Sample:
    at: float
    requests: float
    seconds: float


# Counters only ever grow: what happened in the last minute is seen by who has looked before, in this process.
_SEEN: dict[str, deque[_Sample]] = defaultdict(deque)


async def metrics_of(url: str, headers: Mapping[str, str], names: Counters) -> DeploymentMetrics | None:
    """
    Return what happened since the server was last looked at, a minute ago at most.

    None at the first look, and where it shows no such counters. Raises ``ResourceUnavailable`` where it does not
    answer.
    """
    answer = await ask(Call(url, headers=headers), _SECONDS)
    if answer.status != 200:
        return None
    load = since_last_look(url, answer.content.decode(errors="replace"), names)
    return None if load is None else DeploymentMetrics(**load.model_dump(), measured_by=MeasuredBy.PLATFORM)


def since_last_look(url: str, text: str, names: Counters) -> Load | None:
    """
    Return what a server's counters have come to since it was last looked at.

    None at the first look, and where it does not show them.
    """
    requests, seconds = total(text, names.requests), total(text, names.seconds)
    if requests is None or seconds is None:
        return None
    return _since(_SEEN[url], _Sample(time.monotonic(), requests, seconds))


def total(text: str, name: str) -> float | None:
    """Add up a counter over all its labels; None where it is not among the lines."""
    lines = re.findall(rf"^{re.escape(name)}(?:\{{[^\n]*\}})? (\S+)", text, re.MULTILINE)
    return sum(map(float, lines)) if lines else None


def _since(seen: deque[_Sample], new: _Sample) -> Load | None:
    if seen and seen[-1].requests > new.requests:
        seen.clear()  # the server was started anew
    seen.append(new)
    while len(seen) > 2 and seen[1].at <= new.at - _WINDOW_SECONDS:
        seen.popleft()
    if (first := seen[0]) is new:
        return None
    requests, minutes = new.requests - first.requests, max((new.at - first.at) / 60.0, 1.0)
    latency = 1e3 * (new.seconds - first.seconds) / requests if requests else None
    return Load(requests_per_minute=round(requests / minutes), avg_latency_ms=latency)
