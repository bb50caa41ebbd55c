"""The API's side of publishing: takes orders, has them carried out behind its back, and goes on after a restart."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from infra.credentials import CredentialStore
from infra.registries.check import check_registries
from infra.registries.publications import ask_for, asked_for, carry_out, forget, with_publications
from infra.registries.sending import Sender
from infra.settings import Settings
from peft_studio.adapters import Adapter
from peft_studio.errors import NotFound, StudioError
from peft_studio.registries import Registry

logger = logging.getLogger(__name__)


class Publisher:
    """Publishes adapters that exist; ``weights_hash`` tells what is known of an uploaded one's."""

    def __init__(
        self, credentials: CredentialStore, settings: Settings, weights_hash: Callable[[str], str | None]
    ) -> None:
        self._credentials = credentials
        self._settings = settings
        self._sender = Sender(credentials, settings)
        self._weights_hash = weights_hash
        self._working: dict[str, asyncio.Task[None]] = {}

    async def publish(self, adapter: Adapter, registries: Sequence[Registry]) -> Adapter:
        """
        Write down where an adapter is wanted and begin; return it with where it is, or is to be.

        Raises ``InvalidConfig`` or ``PlatformNotConnected`` for what cannot work.
        """
        check_registries(registries, await self._credentials.connections())
        try:
            await asyncio.to_thread(ask_for, adapter, registries, self._settings)
        except FileNotFoundError:
            raise NotFound(f"There is no adapter {adapter.id!r}.", adapter_id=adapter.id) from None
        self._begin(adapter)
        return await asyncio.to_thread(with_publications, adapter)

    async def resume(self) -> None:
        """Go on with what was asked for before this process was there."""
        for adapter in await asyncio.to_thread(asked_for, self._settings):
            self._begin(adapter)

    async def close(self) -> None:
        """Stop; what is not done is gone on with by whoever starts next."""
        working = list(self._working.values())
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)

    def _begin(self, adapter: Adapter) -> None:
        before = self._working.get(adapter.id)
        task = self._working[adapter.id] = asyncio.create_task(self._work(adapter, before))
        task.add_done_callback(lambda done: self._done(adapter.id, done))

    def _done(self, adapter_id: str, task: asyncio.Task[None]) -> None:
        if self._working.get(adapter_id) is task:
            del self._working[adapter_id]

    async def _work(self, adapter: Adapter, before: asyncio.Task[None] | None) -> None:
        if before:
            await asyncio.gather(before, return_exceptions=True)
        sha256 = await asyncio.to_thread(self._weights_hash, adapter.id)
        try:
            await carry_out(adapter, self._sender, self._settings, sha256)
        except FileNotFoundError:
            await asyncio.to_thread(forget, adapter, self._settings)  # it was deleted
        except (OSError, StudioError):
            logger.exception("The adapter %s could not be published.", adapter.id)
