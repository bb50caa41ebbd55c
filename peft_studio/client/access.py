"""Who may use a studio: API keys, and tickets for WebSockets of browsers."""

from peft_studio.answers import Deleted, KeyCreated, KeyList, Ticket
from peft_studio.client.calls import Call, model, operation, path


class AccessOperations:
    """Manage API keys (with a key of the role admin), and make tickets."""

    @operation
    def create_ticket(self) -> Call[Ticket]:
        """Make a ticket: whoever has it may open one WebSocket within a minute, as a browser that has no key."""
        return Call("POST", "/tickets", model(Ticket))

    @operation
    def list_keys(self, *, limit: int | None = None, cursor: str | None = None) -> Call[KeyList]:
        """Return API keys without their secrets, oldest first; ``cursor`` is a page's ``next_cursor``."""
        return Call("GET", "/keys", model(KeyList), {"limit": limit, "cursor": cursor})

    @operation
    def create_key(self, name: str, role: str = "write") -> Call[KeyCreated]:
        """Make an API key with the role read, write or admin; its secret cannot be shown again."""
        return Call("POST", "/keys", model(KeyCreated), json={"name": name, "role": role})

    @operation
    def revoke_key(self, key_id: str) -> Call[Deleted]:
        """Revoke an API key: within seconds it opens nothing."""
        return Call("DELETE", path("keys", key_id), model(Deleted))
