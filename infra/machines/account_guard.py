"""An account is not let go of while machines are rented with it: nobody could end them, and they would cost money."""

from collections.abc import Mapping, Sequence

from infra.machines.reads import Machines
from infra.platforms.connections import base_url
from infra.platforms.vendors import VENDORS
from infra.providers import PROVIDERS
from infra.providers.base import Account
from infra.settings import Settings
from peft_studio.errors import Conflict
from peft_studio.machines import MachineReceipt, MachineStatus

_SHOWN = 3


class AccountGuard:
    """Knows what is rented where; consulted before credentials are forgotten or replaced."""

    def __init__(self, machines: Machines, settings: Settings):
        self._machines, self._settings = machines, settings

    async def require_free(self, platform: str) -> None:
        """Raise ``Conflict`` where machines of a platform are not gone yet; those that need a person count."""
        if rented := await self._rented(platform):
            raise Conflict(
                f"{_names(rented)} at {platform} must be gone first, or nobody could end them: wait for their jobs or "
                "cancel them, see to those that need a person, then disconnect. Where no key of the vendor's is left, "
                "an admin can settle one that is stranded and gone: POST /machines/{name}/settle.",
                platform=platform,
            )

    async def require_same_account(self, platform: str, values: Mapping[str, str]) -> None:
        """
        Raise ``Conflict`` where new credentials do not show the machines that the old ones have rented.

        Those that need a person are left out: a person may have seen to them already.
        """
        rented = [one for one in await self._rented(platform) if one.machine_id]
        if not (at_work := [one for one in rented if one.status is not MachineStatus.STRANDED]):
            return
        account = Account(base_url(VENDORS[platform], self._settings, values), values)
        shown = {machine.id for machine in await PROVIDERS[platform](account).machines()}
        if hidden := [one for one in at_work if one.machine_id not in shown]:
            raise Conflict(
                f"These credentials do not show {_names(hidden)}, rented with the ones before: are they of another "
                "account? Wait until those machines are gone, then connect again.",
                platform=platform,
            )

    async def _rented(self, platform: str) -> Sequence[MachineReceipt]:
        if platform not in PROVIDERS:
            return ()
        return [one for one in await self._machines.not_over() if one.provider == platform]


def _names(receipts: Sequence[MachineReceipt]) -> str:
    more = f" and {len(receipts) - _SHOWN} more" if len(receipts) > _SHOWN else ""
    return ", ".join(one.name for one in receipts[:_SHOWN]) + more
