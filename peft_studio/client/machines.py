"""Rented machines."""

from peft_studio.answers import MachineList
from peft_studio.client.calls import Call, model, operation


class MachineOperations:
    """Look at machines that were rented for jobs."""

    @operation
    def list_machines(
        self, *, active: bool | None = None, provider: str | None = None, limit: int | None = None
    ) -> Call[MachineList]:
        """Return rented machines with their receipts, the newest first; ``active``: only those that are not gone."""
        return Call("GET", "/machines", model(MachineList), {"active": active, "provider": provider, "limit": limit})
