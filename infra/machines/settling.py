"""Closing receipts by hand: of machines at a vendor with which nobody has an account any more."""

import asyncio
import fcntl
from collections.abc import Generator
from contextlib import contextmanager

from infra.machines.ledger import Ledger
from infra.machines.reads import MachineReads
from infra.prefect_database import PrefectDatabase
from infra.prefect_patience import answering
from infra.settings import Settings
from peft_studio.errors import Conflict, NotFound, ResourceUnavailable
from peft_studio.events import now
from peft_studio.machines import MachineReceipt, MachineStatus


class MachinesInPrefect(MachineReads):
    """The receipts of all machines, of which some are closed by hand; for the API."""

    def __init__(self, database: PrefectDatabase, settings: Settings, ledger: Ledger | None = None):
        super().__init__(database)
        self._settings = settings
        self._ledger = ledger or Ledger(settings)

    async def settle(self, name: str, cost: float, key_name: str) -> MachineReceipt:
        """Close a receipt, with what its machine has cost, by whose word; the ledger keeps what it was before."""
        with closing(self._settings, patiently=False):
            known = {one.name: one for one in await self.not_over()}
            closed = settled(known.get(name), name, cost, key_name)
            async with answering():
                return await asyncio.to_thread(self._ledger.write, closed)


def settled(receipt: MachineReceipt | None, name: str, cost: float, key_name: str) -> MachineReceipt:
    """Return a receipt as it is once a person has closed it; raises why nobody may."""
    if receipt is None:
        raise NotFound(f"There is no machine {name[:100]!r} of which anything is still to be done.", field="name")
    if receipt.status is not MachineStatus.STRANDED:
        raise Conflict(
            f"The machine is {receipt.status}: the studio ends it and closes its receipt by itself. Only one that is "
            "stranded, and that somebody has seen to at its vendor's, is settled by hand.",
            name=name,
            status=receipt.status,
        )
    closed = {"status": MachineStatus.GONE, "gone_at": now(), "cost": cost, "cost_from": "person"}
    return receipt.model_copy(update={**closed, "settled_by": key_name})


@contextmanager
def closing(settings: Settings, *, patiently: bool) -> Generator[None]:
    """Be the only one, of all processes of this machine, who closes receipts of jobs that have ended."""
    with (settings.data_dir / "sweep.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if patiently else fcntl.LOCK_NB))
        except BlockingIOError:
            raise ResourceUnavailable("A sweep looks at the machines just now; try again in a moment.") from None
        yield
