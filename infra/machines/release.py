"""Giving a rented machine back: it is over only when its vendor's own list does not show it any more."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from infra.credentials import CredentialStore
from infra.machines.accounts import provider_of
from infra.machines.ledger import Ledger
from infra.machines.receipts import cost_by_rate
from infra.providers.base import ForgetsEnded, Provider, Rented
from infra.providers.wire import CREATE_SECONDS
from infra.rendezvous.work import Heard, door_of, forget_work, heard_of
from infra.settings import Settings
from peft_studio.errors import CredentialRefused, PlatformNotConnected, ResourceUnavailable
from peft_studio.events import now
from peft_studio.machines import MachineReceipt, MachineStatus

GONE_SECONDS = 180.0
LOST_ANSWER_SECONDS = 60.0  # after which a machine that was created all the same shows up in its vendor's list
_LOOK_SECONDS = 0.5
_LONGEST_LOOK_SECONDS = 5.0
_STRANDED = (
    "Its vendor does not take the studio's key any more, so the studio cannot end it. See to it in the vendor's own "
    "console, then connect the platform again: until it is gone it may cost money."
)


class Returns:
    """Gives machines back, for jobs and for the sweep; to be used from outside an event loop."""

    def __init__(self, settings: Settings, ledger: Ledger, credentials: CredentialStore):
        self._settings, self._ledger, self._credentials = settings, ledger, credentials

    def release(self, receipt: MachineReceipt, reason: str) -> MachineReceipt:
        """
        Give a machine back and return its last receipt; done twice it does no harm.

        Raises ``CredentialRefused`` where a person has to see to it, which the receipt says then; and
        ``ResourceUnavailable`` where the vendor does not answer: to be tried again, by the job or by the sweep.
        """
        if receipt.status.is_over:
            return receipt
        heard: Heard | None = None
        with suppress(ResourceUnavailable):  # a bucket that is away keeps no machine alive
            heard = heard_of(self._settings, receipt.name)
            door_of(self._settings, receipt.name).shut()
        receipt = self._ledger.change(
            receipt,
            status=MachineStatus.RELEASING,
            rented_at=receipt.rented_at or (receipt.intended_at if heard else None),
            released_at=receipt.released_at or now(),
            reason=receipt.reason or reason,
        )
        try:
            existed, cost = asyncio.run(self._end(receipt, heard))
        except (CredentialRefused, PlatformNotConnected) as error:
            self._ledger.change(receipt, status=MachineStatus.STRANDED, reason=_STRANDED)
            raise CredentialRefused(f"{error.message} {_STRANDED}", platform=receipt.provider) from error
        forget_work(self._settings, receipt.name)
        if not existed:
            return self._ledger.change(receipt, status=MachineStatus.NEVER, cost=0.0)
        gone = receipt.model_copy(update={"status": MachineStatus.GONE, "gone_at": now()})
        told = cost is not None
        return self._ledger.change(
            gone, cost=cost if told else cost_by_rate(gone), cost_from="vendor" if told else "rate"
        )

    async def _end(self, receipt: MachineReceipt, heard: Heard | None) -> tuple[bool, float | None]:
        """
        End the machine and wait until it is gone; tell whether there was one, and what its vendor says it cost.

        One that has worked may have ended itself before its vendor had told anybody what it is called.
        """
        provider = await provider_of(receipt.provider, self._settings, self._credentials)
        machine_id = receipt.machine_id or await _id_by_name(provider, receipt)
        if machine_id is None:
            told = heard.machine_id if heard else ""
            return receipt.rented_at is not None, await provider.billed(told, receipt.name) if told else None
        await provider.release(machine_id)
        await _until(lambda found: all(one.id != machine_id for one in found), provider, receipt)
        return True, await provider.billed(machine_id, receipt.name)


async def find(provider: Provider, name: str, seconds: float) -> Rented | None:
    """Look for a machine by its name, for some time: vendors' lists may lag behind."""
    deadline = time.monotonic() + seconds
    while True:
        found = next((one for one in await provider.machines() if one.name == name), None)
        if found is None and isinstance(provider, ForgetsEnded):
            found = await provider.ended(name)
        if found is not None:
            return found
        if time.monotonic() > deadline:
            return None
        await asyncio.sleep(_LOOK_SECONDS)


def may_yet_appear(receipt: MachineReceipt) -> float:
    """Return for how many more seconds a machine may show up in its vendor's list, whose creation nobody confirmed."""
    if receipt.machine_id is not None:
        return 0.0
    return max(0.0, CREATE_SECONDS + LOST_ANSWER_SECONDS - (now() - receipt.intended_at).total_seconds())


async def _id_by_name(provider: Provider, receipt: MachineReceipt) -> str | None:
    found = await find(provider, receipt.name, may_yet_appear(receipt))
    return found.id if found else None


async def _until(done: Callable[[list[Rented]], bool], provider: Provider, receipt: MachineReceipt) -> None:
    deadline, pause = time.monotonic() + GONE_SECONDS, _LOOK_SECONDS
    while not done(await provider.machines()):
        if time.monotonic() > deadline:
            raise ResourceUnavailable(
                f"The machine {receipt.name} was told to end and is still listed; it is told again.",
                platform=receipt.provider,
            )
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_LOOK_SECONDS)
