"""Rented machines."""

from peft_studio.answers import MachineList
from peft_studio.client.calls import Call, model, operation, path
from peft_studio.machines import MachineReceipt


class MachineOperations:
    """Look at machines that were rented for jobs, and settle what a vendor is still to tell."""

    @operation
    def list_machines(
        self, *, active: bool | None = None, provider: str | None = None, limit: int | None = None
    ) -> Call[MachineList]:
        """Return rented machines with their receipts, the newest first; ``active``: only those that are not gone."""
        return Call("GET", "/machines", model(MachineList), {"active": active, "provider": provider, "limit": limit})

    @operation
    def settle_machine(self, name: str, cost: float) -> Call[MachineReceipt]:
        """
        Close the receipt of a machine that is stranded, with what it has cost in US dollars (with an admin's key).

        For a vendor with which nobody has an account any more; see first that the machine is gone.
        """
        return Call("POST", path("machines", name, "settle"), model(MachineReceipt), json={"cost": cost})
