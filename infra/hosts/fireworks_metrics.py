"""How busy a deployment at Fireworks is, from the page of metrics that there is of an account."""

import math
import re
import time
from collections.abc import Mapping

from infra.vendor_http import Call, ask
from peft_studio.deployments import DeploymentMetrics, MeasuredBy

# docs.fireworks.ai/deployments/exporting-metrics: rates a second over the last minute, for each deployment.
_RATE = "request_counter_total:sum_by_deployment"
_LATENCY = "latency_overall_ms_bucket:sum_by_deployment"
_FRESH_SECONDS = 30.0  # as often as pages are made anew; an account may ask for six a minute
_SECONDS = 5.0
_LINE = re.compile(r"^([\w:]+)\{([^}\n]*)\} (\S+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_PAGES: dict[str, tuple[float, str]] = {}


async def fireworks_metrics(url: str, headers: Mapping[str, str], name: str) -> DeploymentMetrics | None:
    """Return what an account's page says of a deployment; None where it says nothing, or there is no page."""
    page = await _page(url, headers)
    rates = [value for labels, value in _samples(page, _RATE) if labels.get("deployment_id") == name]
    if not rates:
        return None
    counts = [
        (float(labels["le"]), value)
        for labels, value in _samples(page, _LATENCY)
        if labels.get("deployment_id") == name and "le" in labels
    ]
    return DeploymentMetrics(
        requests_per_minute=round(60 * sum(rates)), avg_latency_ms=_mean(counts), measured_by=MeasuredBy.PLATFORM
    )


async def _page(url: str, headers: Mapping[str, str]) -> str:
    read, page = _PAGES.get(url, (-math.inf, ""))
    if time.monotonic() - read < _FRESH_SECONDS:
        return page
    answer = await ask(Call(url, headers=headers), _SECONDS)
    page = answer.content.decode(errors="replace") if answer.status == 200 else ""
    _PAGES[url] = time.monotonic(), page
    return page


def _samples(page: str, name: str) -> list[tuple[dict[str, str], float]]:
    lines = (found for found in _LINE.finditer(page) if found[1] == name)
    return [(dict(_LABEL.findall(line[2])), float(line[3])) for line in lines]


def _mean(counts: list[tuple[float, float]]) -> float | None:
    """Return the mean of a histogram by the middles of its buckets; of what is above the last one, its lower end."""
    total = weighed = below = lower = 0.0
    for upper, count in sorted(counts):
        middle = lower if math.isinf(upper) else (lower + upper) / 2
        weighed, total = weighed + (count - below) * middle, count
        below, lower = count, upper
    return weighed / total if total else None
