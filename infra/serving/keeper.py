"""
Makes what runs on this machine match the records of deployments: one endpoint a base model, with its adapters.

It runs in the worker's process. Endpoints are its children, and die with it; the next one starts them again. An
endpoint is vLLM's or the studio's own (``choosing``); a base model has both where vLLM does not take all its adapters.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
from prefect.client.orchestration import get_client

from infra.serving.choosing import Choice, base_of
from infra.serving.endpoint_process import Base, EndpointProcess, OwnEndpoint, is_free
from infra.serving.leash import UNSERVABLE
from infra.serving.load_times import LoadTimes
from infra.serving.proving import AtEndpoint, prove
from infra.serving.records import CHECK_SECONDS, Deployment, Deployments, DeploymentsInPrefect
from infra.serving.vllm_process import VllmEndpoint
from infra.settings import LocalEngine, Settings
from peft_studio.deployments import DeploymentStatus
from peft_studio.errors import NotFound, ResourceUnavailable, StudioError
from peft_studio.ports import free_port

log = logging.getLogger(__name__)
_MOST_DEATHS = 5  # of an endpoint, one soon after the other, before its deployments are given up
_STEADY_SECONDS = 60.0
_PORT_SECONDS = 5.0  # that a port is waited for: the endpoint before this one may still be letting go of it


_PROCESSES: Mapping[LocalEngine, type[EndpointProcess]] = {
    LocalEngine.OWN: OwnEndpoint,
    LocalEngine.VLLM: VllmEndpoint,
}


class Place(NamedTuple):
    """Where deployments belong: an endpoint, running or not."""

    base: Base
    engine: LocalEngine


@dataclass
class _Kept:
    """An endpoint that is wanted, running or not."""

    since: float = field(default_factory=time.monotonic)
    process: EndpointProcess | None = None
    is_loaded: bool = False
    deaths: int = 0
    not_before: float = 0.0


async def keep(settings: Settings) -> None:
    """Keep the deployments of the Prefect server, until cancelled; what goes wrong here stays here."""
    async with get_client() as client:
        keeper = Keeper(settings, DeploymentsInPrefect(client))
        try:
            while True:
                try:
                    await keeper.check()
                except (httpx.HTTPError, ResourceUnavailable):
                    pass  # the Prefect server is away: what runs goes on running
                except Exception:
                    log.exception("Looking after the deployments failed.")
                await asyncio.sleep(CHECK_SECONDS)
        finally:
            await keeper.close()


class Keeper:
    """Looks after the endpoints; ``check`` takes them one step further towards what is wanted."""

    def __init__(self, settings: Settings, records: Deployments):
        self._settings = settings
        self._records = records
        self._load_times = LoadTimes(settings.data_dir)
        self._choice = Choice(settings)
        self._kept: dict[Place, _Kept] = {}

    async def check(self) -> None:
        """Compare records and endpoints once."""
        wanted: dict[Place, list[Deployment]] = defaultdict(list)
        for record in await self._records.all():
            if record.platform == "local" and record.is_wanted:
                wanted[Place(base_of(record), self._choice.engine(record))].append(record)
        for place in self._kept.keys() - wanted.keys():
            if process := self._kept.pop(place).process:
                await process.stop()
        await asyncio.gather(*(self._tend(place, records) for place, records in wanted.items()))

    async def close(self) -> None:
        """Stop all endpoints."""
        await asyncio.gather(*(kept.process.stop() for kept in self._kept.values() if kept.process))
        self._kept.clear()

    async def _tend(self, place: Place, records: Sequence[Deployment]) -> None:
        kept = self._kept.setdefault(place, _Kept())
        if kept.process is not None and kept.process.exit_code is not None:
            await self._bury(place, kept, kept.process, records)
        elif kept.process is None:
            await self._start(place, kept, records)
        else:
            with suppress(ResourceUnavailable):  # it is still starting, or about to be found dead
                loaded = await kept.process.client.adapters()
                if not kept.is_loaded:
                    kept.is_loaded = True
                    await asyncio.to_thread(self._load_times.note, place.base.source, kept.process.age_seconds)
                await self._match(place, kept.process, loaded, records)

    async def _start(self, place: Place, kept: _Kept, records: Sequence[Deployment]) -> None:
        if time.monotonic() < kept.not_before:
            return
        port = next((port for record in records if (port := _port(record, place.engine))), None)
        if port and not is_free(port):
            if time.monotonic() < kept.since + _PORT_SECONDS:
                return
            port = None
        await self._note(records, DeploymentStatus.DEPLOYING)
        process = _PROCESSES[place.engine](place.base, port or free_port(), self._settings)
        await process.start()
        kept.process = process  # not before: one that was never started would be waited for
        log.info("Started the endpoint of %s (%s) at %s.", place.base.source, place.engine, process.url)

    async def _bury(self, place: Place, kept: _Kept, process: EndpointProcess, records: Sequence[Deployment]) -> None:
        """Clear away an endpoint that ended: start it again after a pause, or give its deployments up."""
        had_loaded, base = kept.is_loaded, place.base
        kept.process, kept.is_loaded, kept.since = None, False, time.monotonic()
        kept.deaths = 1 if process.age_seconds > _STEADY_SECONDS else kept.deaths + 1
        kept.not_before = time.monotonic() + (2 ** (kept.deaths - 1) - 1)  # at once, then 1, 3, 7 seconds
        log.warning("The endpoint of %s ended with code %s: %s", base.source, process.exit_code, process.last_words())
        await process.stop()
        if not had_loaded and self._choice.turns_away(place.engine, base, process.last_words()):
            return
        if process.exit_code == UNSERVABLE:
            reason = process.last_words()
        elif kept.deaths >= _MOST_DEATHS:
            reason = f"its endpoint ended {kept.deaths} times, the last time saying: {process.last_words()}"
        else:
            return await self._note(records, DeploymentStatus.DEPLOYING)
        await self._note(records, DeploymentStatus.FAILED, error=reason)
        del self._kept[place]

    async def _match(
        self, place: Place, process: EndpointProcess, loaded: dict[str, str], records: Sequence[Deployment]
    ) -> None:
        """Load what is wanted and not there, and see that it has an effect; unload what is there and not wanted."""
        wanted = {record.deployment_id: record.adapter for record in records}
        for name in [name for name, path in loaded.items() if wanted.get(name) != path]:
            await process.client.unload(name)
            del loaded[name]
        for record in records:
            effect = record.effect
            try:
                if record.deployment_id not in loaded:
                    await process.client.load(record.deployment_id, record.adapter)
                    effect = None
                effect = effect or await prove(AtEndpoint(process.client, record), Path(record.adapter))
            except ResourceUnavailable:
                raise
            except StudioError as error:
                if not self._choice.turns_away(place.engine, record.adapter, error.message):
                    await self._note([record], DeploymentStatus.FAILED, error=error.message)
            else:
                found = {"endpoint": process.url, "engine": place.engine, "effect": effect}
                await self._note([record], DeploymentStatus.RUNNING, **found)

    async def _note(self, records: Iterable[Deployment], status: DeploymentStatus, **changes: Any) -> None:
        """Write down what became of deployments, unless they were stopped or removed meanwhile."""
        for record in records:
            changed = record.model_copy(update={"status": status, "error": None, **changes})
            with suppress(NotFound):
                if changed != record and await self._records.get(record.deployment_id) == record:
                    await self._records.replace(changed)


def _port(record: Deployment, engine: LocalEngine) -> int | None:
    return urlsplit(record.endpoint).port if record.endpoint and record.engine is engine else None
