"""The meter: what a job's machines have cost so far, and when it has to stop because of that."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from infra.machines.receipts import cost_at_most
from infra.providers.base import Offer
from peft_studio.errors import BudgetExceeded, StudioError, TimedOut
from peft_studio.events import now
from peft_studio.machines import MachineReceipt

WARN_AT = 0.8


@dataclass(frozen=True)
class Limits:
    """
    What a job may cost (US dollars) and how long it may have machines (minutes); None where it may what it takes.

    ``reserve_seconds`` are what it takes to save a checkpoint, send it and end the machine: so the cap is kept.
    """

    cost: float | None = None
    minutes: float | None = None
    reserve_seconds: float = 90.0

    def seconds_left(self, earlier: Sequence[MachineReceipt], hourly_rate: float, longest: float) -> float:
        """Return how long a further machine may be had at a rate, at most so many seconds; 0 or less: not at all."""
        left, at = [longest], now()
        if self.cost is not None and hourly_rate > 0:
            spent = sum(cost_at_most(one, at) for one in earlier)
            left.append((self.cost - spent) / hourly_rate * 3600 - self.reserve_seconds)
        if self.minutes is not None:
            left.append(60 * self.minutes - _seconds(earlier, at))
        return min(left)


@dataclass(frozen=True)
class Affordable:
    """An offer that a job's limits pay for, and for how many seconds at its price."""

    offer: Offer
    seconds: float


def affordable(
    offers: Sequence[Offer], earlier: Sequence[MachineReceipt], limits: Limits, longest: float
) -> list[Affordable]:
    """Return the offers, in their order, that a job may have for longer than it takes to save and send a checkpoint."""
    priced = [Affordable(one, limits.seconds_left(earlier, one.hourly_rate, longest)) for one in offers]
    return [one for one in priced if one.seconds > limits.reserve_seconds]


def out_of_reach(limits: Limits, earlier: Sequence[MachineReceipt]) -> StudioError:
    """Return the error of a job whose limits pay for no machine that is on offer: it names the limit that is near."""
    if limits.seconds_left(earlier, 0.0, math.inf) <= limits.reserve_seconds:
        return TimedOut("The job has had machines as long as it may.", issue="Raise max_duration and retry the job.")
    at = now()
    if spent := sum(cost_at_most(one, at) for one in earlier):
        return BudgetExceeded(
            f"The job has cost ${spent:.2f} of the ${limits.cost or 0:.2f} it may cost: no further machine is rented.",
            issue="Raise max_cost and retry the job: it goes on from its last checkpoint.",
        )
    return BudgetExceeded("max_cost does not pay for a minute of any machine.", issue="Raise max_cost.")


@dataclass(frozen=True)
class Reading:
    """What the meter shows; ``share`` is of the limit that is nearer."""

    cost: float  # at most: of a machine whose creation was not confirmed nobody knows
    share: float
    over: str | None = None  # which limit leaves no time for more: "cost" or "minutes"


def read(receipts: Sequence[MachineReceipt], limits: Limits, at: datetime) -> Reading:
    """Read the meter: all of a job's machines, the one it has now among them."""
    cost = sum(cost_at_most(one, at) for one in receipts)
    seconds, shares = _seconds(receipts, at), [0.0]
    over: str | None = None
    if limits.cost is not None:
        shares.append(cost / limits.cost)
        if cost + sum(_ahead(one, limits.reserve_seconds) for one in receipts if not one.status.is_over) >= limits.cost:
            over = "cost"
    if limits.minutes is not None:
        shares.append(seconds / (60 * limits.minutes))
        if seconds >= 60 * limits.minutes:
            over = over or "minutes"
    return Reading(cost=cost, share=max(shares), over=over)


def _ahead(receipt: MachineReceipt, seconds: float) -> float:
    """Return what a machine costs until it can be gone, the increment that is begun then included."""
    rate = receipt.offered_rate if receipt.hourly_rate is None else receipt.hourly_rate
    return (seconds + receipt.billing_increment) * rate / 3600


def _seconds(receipts: Sequence[MachineReceipt], at: datetime) -> float:
    """Return how long the job has had machines."""
    spans = ((one.rented_at, one.gone_at or at) for one in receipts)
    return sum((end - begin).total_seconds() for begin, end in spans if begin)
