"""A served API, a cable to it, and both Python clients behind one face."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from peft_studio.client import AsyncClient, Client
from peft_studio.events import Event
from tests.integration.api.conftest import *  # noqa: F403 -- the fixtures that the API's own tests have
from tests.integration.clients.lossy import Cable, lossy
from tests.integration.clients.served import Served, served


@pytest.fixture(scope="session")
def api() -> Iterator[Served]:
    with served() as running:
        yield running


@pytest.fixture
def cable(api: Served) -> Iterator[Cable]:
    with lossy(api.url) as running:
        yield running


class Blocking:
    """The blocking client, new for every question."""

    def ask(self, url: str, operation: str, *args: Any, key: str = "writes", repeats: int = 3, **named: Any) -> Any:
        with Client(url, key, timeout=10, repeats=repeats) as client:
            return getattr(client, operation)(*args, **named)

    def follow(self, url: str, job_id: str, after: str | None = None, key: str = "writes") -> list[Event]:
        with Client(url, key, timeout=10) as client:
            return list(client.follow(job_id, after))


class Awaited:
    """The asynchronous client, new for every question."""

    def ask(self, url: str, operation: str, *args: Any, key: str = "writes", repeats: int = 3, **named: Any) -> Any:
        async def asked() -> Any:
            async with AsyncClient(url, key, timeout=10, repeats=repeats) as client:
                return await getattr(client, operation)(*args, **named)

        return asyncio.run(asked())

    def follow(self, url: str, job_id: str, after: str | None = None, key: str = "writes") -> list[Event]:
        async def followed() -> list[Event]:
            async with AsyncClient(url, key, timeout=10) as client:
                return [event async for event in client.follow(job_id, after)]

        return asyncio.run(followed())


Either = Blocking | Awaited


@pytest.fixture(params=[Blocking, Awaited])
def studio(request: Any) -> Either:
    kind: Callable[[], Either] = request.param
    return kind()
