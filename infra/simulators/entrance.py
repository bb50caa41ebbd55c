"""What every simulated vendor does before it looks at a request: whose it is, and whether it is one too many."""

from dataclasses import dataclass
from typing import Protocol

from infra.simulators.accounts import DOORS, GOOD
from infra.simulators.exchange import Asked, Reply
from infra.simulators.faults import FaultKind, Faults


class Premises(Protocol):
    """What lies behind an entrance: a vendor's machines or deployments."""

    key: str
    faults: Faults

    def admin(self, asked: Asked) -> Reply | None:
        """Answer what is asked of the simulator itself; None for everything else."""
        ...


@dataclass(frozen=True)
class Entrance:
    """The way into a vendor's simulator; keys are refused in the words of the platform's door in ``DOORS``."""

    platform: str
    premises: Premises
    too_many: Reply

    def reply(self, asked: Asked) -> Reply | None:
        """Answer whoever looks at the simulator itself, or is not let in; None for those who are."""
        if (told := self.premises.admin(asked)) is not None:
            return told
        revoked = self.premises.faults.take(FaultKind.REVOKED_KEY) is not None
        door = DOORS[self.platform]
        key = door.key_of(asked.headers)
        if revoked or key != self.premises.key:
            return door.refused if revoked or key == GOOD else door.reply(asked.headers)
        return self.too_many if self.premises.faults.take(FaultKind.RATE_LIMIT) else None
