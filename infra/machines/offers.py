"""What all connected providers offer, kept fresh beside the requests that look at it."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.credentials import CredentialStore
from infra.machines.accounts import connected_providers, provider_of, require_way_back
from infra.providers.base import CountsStock, Offer, Provider
from infra.settings import Settings
from peft_studio.errors import InternalError, ResourceUnavailable, StudioError

LONGEST_SECONDS = 60.0  # older offers are shown to nobody
LOOK_SECONDS = 0.2  # that a list may wait for vendors of which nothing is known
ASK_SECONDS = 40.0  # that one vendor may take
_RENEW_SECONDS = 30.0  # from this age on offers are asked for anew
_ROUND_SECONDS = 5.0
_AGAIN_SECONDS = 10.0  # between two attempts at a vendor that failed
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Offered:
    """What is on offer, and the providers that have not answered, with the reason of each."""

    offers: Sequence[Offer]
    unavailable: dict[str, str] = field(default_factory=dict[str, str])


@dataclass
class _Shelf:
    """What one provider answered last, and when."""

    offers: Sequence[Offer] = ()
    at: float = float("-inf")
    error: StudioError | None = None
    tried: float = float("-inf")
    asking: "asyncio.Task[None] | None" = None

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() - self.at <= LONGEST_SECONDS

    @property
    def is_due(self) -> bool:
        pause = _AGAIN_SECONDS if self.error else 0.0
        return time.monotonic() - self.at > _RENEW_SECONDS and time.monotonic() - self.tried > pause


async def _of_course(_: str) -> None:
    pass


class OfferBook:
    """
    The offers of all connected providers, at most ``LONGEST_SECONDS`` old; one instance serves a whole process.

    ``connected`` names the providers that machines can be rented from, ``provider`` opens one of them, ``way_back``
    raises where its machines could not come back to the studio.
    """

    def __init__(
        self,
        connected: Callable[[], Awaitable[Collection[str]]],
        provider: Callable[[str], Awaitable[Provider]],
        way_back: Callable[[str], Awaitable[None]] = _of_course,
    ):
        self._way_back = way_back
        self._connected = connected
        self._provider = provider
        self._names: Collection[str] = ()
        self._naming: asyncio.Task[None] | None = None
        self._shelves: dict[str, _Shelf] = {}
        self._keeping: asyncio.Task[None] | None = None

    async def look(self, seconds: float = LOOK_SECONDS) -> Offered:
        """Return what is known now; waits at most so long for providers of which nothing fresh is known."""
        self.keep_fresh()
        deadline = time.monotonic() + seconds
        await _wait([self._name()], deadline)
        shelves = {name: self._shelves.setdefault(name, _Shelf()) for name in self._names}
        await _wait([self._ask(name) for name, shelf in shelves.items() if not shelf.is_fresh], deadline)
        fresh = [shelf for shelf in shelves.values() if shelf.is_fresh]
        return Offered(
            offers=[offer for shelf in fresh for offer in shelf.offers],
            unavailable={name: _reason(shelf) for name, shelf in shelves.items() if not shelf.is_fresh},
        )

    async def of(self, name: str) -> Sequence[Offer]:
        """Return one connected provider's offers, however long it takes to answer; raises what keeps it from it."""
        shelf = self._shelves.setdefault(name, _Shelf())
        if not shelf.is_fresh:
            await asyncio.wait([self._ask(name, again=True)])
        if shelf.is_fresh:
            return shelf.offers
        raise shelf.error or ResourceUnavailable(f"{name} does not answer; try again in a moment.", platform=name)

    async def to_rent_from(self, name: str, gpu_count: int = 1) -> Sequence[Offer]:
        """Return the offers of a provider that a job on so many GPUs is to be trained at; raises what is in the way."""
        await self._way_back(name)
        return await self.in_stock(name, gpu_count)

    async def in_stock(self, name: str, gpu_count: int) -> Sequence[Offer]:
        """
        Return one connected provider's offers, with the stock of machines that have so many GPUs.

        Where stock depends on how many they are, the provider is asked: what is kept here is of single ones.
        """
        if gpu_count > 1 and isinstance(provider := await self._provider(name), CountsStock):
            return await provider.offers_in_stock(gpu_count)
        return await self.of(name)

    def keep_fresh(self) -> None:
        """Have offers renewed from now on, before they are too old."""
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        """Stop asking."""
        tasks = [self._keeping, self._naming, *(shelf.asking for shelf in self._shelves.values())]
        running = [task for task in tasks if task is not None and not task.done()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            await self._name()
            for name in self._names:
                if self._shelves.setdefault(name, _Shelf()).is_due:
                    self._ask(name)
            await asyncio.sleep(_ROUND_SECONDS)

    def _name(self) -> "asyncio.Task[None]":
        """Find out which providers are connected; all who want to know at the same time share the answer."""

        async def read() -> None:
            try:
                self._names = await self._connected()
            except ResourceUnavailable as error:
                log.warning("Which providers are connected cannot be read: %s", error.message)

        self._naming = _going(self._naming, read)
        return self._naming

    def _ask(self, name: str, *, again: bool = False) -> "asyncio.Task[None]":
        """Ask a provider for its offers; one that has just failed is not asked again, unless that is wanted."""
        shelf = self._shelves[name]

        async def ask() -> None:
            if again or shelf.is_due:
                await self._renew(name, shelf)

        shelf.asking = _going(shelf.asking, ask)
        return shelf.asking

    async def _renew(self, name: str, shelf: _Shelf) -> None:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                shelf.offers = await (await self._provider(name)).offers()
            shelf.at, shelf.error = time.monotonic(), None
        except StudioError as error:
            shelf.error = error
        except TimeoutError:
            shelf.error = ResourceUnavailable(f"{name} has not answered in {ASK_SECONDS:g} seconds.", platform=name)
        except Exception:  # whatever is wrong with one vendor must not keep the others from being shown
            log.exception("The offers of %s could not be read", name)
            shelf.error = InternalError(f"The offers of {name} could not be read; see the API's log.", platform=name)
        shelf.tried = time.monotonic()


def offer_book(settings: Settings, credentials: CredentialStore) -> OfferBook:
    """Return the book of the platforms that this studio has credentials of."""
    return OfferBook(
        lambda: connected_providers(credentials),
        lambda name: provider_of(name, settings, credentials),
        lambda name: require_way_back(name, settings, credentials),
    )


def _going(task: "asyncio.Task[None] | None", start: Callable[[], Coroutine[Any, Any, None]]) -> "asyncio.Task[None]":
    return asyncio.get_running_loop().create_task(start()) if task is None or task.done() else task


async def _wait(tasks: Sequence["asyncio.Task[None]"], deadline: float) -> None:
    """Wait until all are done or it is too late; they go on either way."""
    if tasks:
        await asyncio.wait(tasks, timeout=max(0.0, deadline - time.monotonic()))


def _reason(shelf: _Shelf) -> str:
    return shelf.error.message if shelf.error else "It has not answered yet; look again in a moment."
