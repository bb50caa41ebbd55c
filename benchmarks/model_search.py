"""How long a search over three sources of models takes while one of them hangs, and how long the same one again."""

import asyncio
import statistics
import time

from benchmarks.report import Figure
from infra.credentials import CredentialsInMemory
from infra.hubs.civitai import CivitaiModels
from infra.hubs.huggingface import HuggingFaceModels
from infra.hubs.ollama import OllamaModels
from infra.hubs.search import Models
from infra.settings import Settings
from infra.simulators.loopback import served
from infra.simulators.sources import Repositories, Trouble, create_civitai, create_hub, create_ollama
from peft_studio.config import ModelSource

TIMEOUT_SECONDS = 1.0
ROUNDS = 5


def measure() -> list[Figure]:
    """Search once to have imports done, then over and over with other words, each repeated."""
    with (
        served(create_hub(Repositories({}), Trouble())) as hub,
        served(create_civitai(Trouble(silent_seconds=10))) as civitai,
        served(create_ollama(Trouble())) as ollama,
    ):
        settings = Settings(platform_urls={"huggingface": hub, "civitai": civitai, "ollama": ollama})
        return asyncio.run(_measure(settings))


async def _measure(settings: Settings) -> list[Figure]:
    kept = CredentialsInMemory()
    models = Models(
        {
            ModelSource.HUGGINGFACE: HuggingFaceModels(kept, settings),
            ModelSource.CIVITAI: CivitaiModels(kept, settings),
            ModelSource.OLLAMA: OllamaModels(kept, settings),
        },
        TIMEOUT_SECONDS,
    )
    await models.search("warm", None, 20, None)
    first: list[float] = []
    again: list[float] = []
    for number in range(ROUNDS):
        for taken in (first, again):
            began = time.perf_counter()
            page = await models.search(f"words {number}", None, 20, None)
            taken.append(time.perf_counter() - began)
            assert [one.source for one in page.unavailable] == [ModelSource.CIVITAI]
    beyond = 1000 * (statistics.median(first) - TIMEOUT_SECONDS)
    return [
        Figure("three sources, one hangs: beyond its time-out, median", beyond, "ms", at_most=100),
        Figure("the same search again, slowest", 1000 * max(again), "ms", at_most=20),
    ]
