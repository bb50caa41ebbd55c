"""Examples of API keys and tickets for the API's documentation."""

from typing import Any

KEY: dict[str, Any] = {
    "id": "4be1c2a09d57",
    "name": "laptop",
    "role": "write",
    "created_at": "2024-01-15T10:30:00Z",
    "revoked_at": None,
    "last_used_at": "2024-01-15T11:15:00Z",
}

TICKET: dict[str, Any] = {
    "ticket": "9Qm3yF0c0uG6m1xk2S8bq4dYt7VZrJ5wN1eHcLpXoAs",
    "expires_at": "2024-01-15T10:31:00Z",
}
