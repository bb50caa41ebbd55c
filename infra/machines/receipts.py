"""A job's receipts as they lie in its run directory, and what they add up to."""

import math
from collections.abc import Sequence
from datetime import datetime

from peft_studio.events import now
from peft_studio.machines import MachineReceipt, MachineStatus
from peft_studio.run_dir import RunDir

FOLDER, RECEIPT = "machines", "receipt.json"


def receipts_of(run: RunDir) -> list[MachineReceipt]:
    """Return a job's machines, the first one first."""
    names = (path.parent.name for path in (run.path / FOLDER).glob(f"*/{RECEIPT}"))
    found = (run.read(f"{FOLDER}/{name}/{RECEIPT}", MachineReceipt) for name in names)
    return sorted((receipt for receipt in found if receipt), key=lambda receipt: receipt.attempt)


def cost_by_rate(receipt: MachineReceipt, until: datetime | None = None) -> float | None:
    """
    Return what a machine has cost: every increment begun since it was created, at the rate read after it was up.

    Vendors bill some seconds less, as they start to count later. None where it is not known whether there is a machine.
    """
    if receipt.status is MachineStatus.NEVER:
        return 0.0
    if receipt.rented_at is None:
        return None
    end = until or receipt.gone_at or now()
    seconds = max(0.0, (end - receipt.rented_at).total_seconds())
    increments = max(1, math.ceil(seconds / receipt.billing_increment))
    rate = receipt.offered_rate if receipt.hourly_rate is None else receipt.hourly_rate
    return increments * receipt.billing_increment * rate / 3600


def cost_at_most(receipt: MachineReceipt, at: datetime) -> float:
    """Return what a machine may have cost; one whose creation nobody confirmed may be there since it was asked for."""
    if receipt.cost is not None:
        return receipt.cost
    began = receipt.model_copy(update={"rented_at": receipt.rented_at or receipt.intended_at})
    return cost_by_rate(began, receipt.gone_at or at) or 0.0


def cost_of(receipts: Sequence[MachineReceipt]) -> float | None:
    """Return what machines have cost in all, so far; None where that is not known of one of them."""
    costs = [receipt.cost if receipt.cost is not None else cost_by_rate(receipt) for receipt in receipts]
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None
