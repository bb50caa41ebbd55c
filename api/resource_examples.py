"""Examples of machines and their prices, for the API's document."""

from typing import Any

RESOURCES: dict[str, Any] = {
    "resources": [
        {
            "id": "local",
            "provider": "local",
            "name": "RTX 4090",
            "gpu_type": "RTX 4090",
            "gpu_count": 1,
            "vram_gb": 24,
            "cpu_cores": 16,
            "ram_gb": 64,
            "storage_gb": 500,
            "available": True,
            "pricing": {"hourly_rate": 0, "currency": "USD", "billing_increment": 1, "minimum_charge": 0},
        },
        {
            "id": "gpu-rtx4090",
            "provider": "runpod",
            "name": "RTX 4090 (secure cloud)",
            "gpu_type": "RTX 4090",
            "gpu_count": 1,
            "vram_gb": 24,
            "cpu_cores": None,
            "ram_gb": None,
            "storage_gb": None,
            "available": True,
            "pricing": {"hourly_rate": 0.69, "currency": "USD", "billing_increment": 1, "minimum_charge": 0.0002},
        },
    ],
    "unavailable_providers": [{"provider": "vast", "reason": "It has not answered yet; look again in a moment."}],
}

PRICING: dict[str, Any] = {
    "resource_id": "local",
    "provider": "local",
    "pricing": {"hourly_rate": 0, "currency": "USD", "billing_increment": 1, "minimum_charge": 0},
    "availability": {"available": True, "queue_length": 0, "estimated_wait_minutes": 0},
}

PUT_BUDGETS: dict[str, Any] = {
    "budgets": [
        {"scope": "project", "id": "support", "monthly_usd": 200.0},
        {"scope": "key", "id": "3f9a1c0b7e2d", "monthly_usd": 50.0},
    ]
}
BUDGETS: dict[str, Any] = {
    "budgets": [
        {"scope": "key", "id": "3f9a1c0b7e2d", "monthly_usd": 50.0, "spent_usd": 12.4, "held_usd": 3.1},
        {"scope": "project", "id": "support", "monthly_usd": 200.0, "spent_usd": 12.4, "held_usd": 3.1},
    ]
}

MACHINES: dict[str, Any] = {
    "machines": [
        {
            "name": "pst-3f9a1c-0123456789abcdef0123456789abcdef-1",
            "provider": "runpod",
            "resource_id": "gpu-rtx4090",
            "job_id": "job_0123456789abcdef0123456789abcdef",
            "attempt": 1,
            "status": "gone",
            "spot": False,
            "vram_gb": 24,
            "machine_id": "k3x9q2m1",
            "offered_rate": 0.69,
            "hourly_rate": 0.69,
            "billing_increment": 1,
            "intended_at": "2024-01-15T10:30:02Z",
            "rented_at": "2024-01-15T10:30:03Z",
            "ready_at": "2024-01-15T10:31:10Z",
            "released_at": "2024-01-15T11:15:00Z",
            "gone_at": "2024-01-15T11:15:02Z",
            "cost": 0.5173,
            "cost_from": "vendor",
            "lost": False,
            "reason": "The job had no more use for it.",
            "project": "my-finetuning",
            "key_id": None,
        }
    ]
}
SETTLE = {"cost": 1.84}
SETTLED: dict[str, Any] = MACHINES["machines"][0] | {
    "cost": 1.84,
    "cost_from": "person",
    "settled_by": "operations",
    "hourly_rate": 0.72,
    "reason": "Its vendor does not take the studio's key any more, so the studio cannot end it.",
}
