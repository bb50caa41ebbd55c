"""Examples of exports, for the API's document."""

from typing import Any

EXPORT: dict[str, Any] = {"format": "gguf", "gguf_type": "q8_0", "name": "support"}
_CONFIG: dict[str, Any] = {"weights": None, "create": None, "rank": None, **EXPORT}

QUEUED: dict[str, Any] = {
    "export_id": "export_4c0e9a51c2f3b4d5e6f70d3c6a6e8f3b",
    "adapter_id": "adapter_0d3c6a6e8f3b4c0e9a51c2f3b4d5e6f7",
    "config": _CONFIG,
    "status": "pending",
    "step": "queued",
    "progress": 0.0,
    "created_at": "2024-01-15T11:15:00Z",
    "started_at": None,
    "completed_at": None,
    "path": None,
    "result": None,
    "error": None,
}
DONE: dict[str, Any] = QUEUED | {
    "status": "completed",
    "step": "done",
    "progress": 1.0,
    "started_at": "2024-01-15T11:15:01Z",
    "completed_at": "2024-01-15T11:16:12Z",
    "path": "/home/me/.peft-studio/exports/export_4c0e9a51c2f3b4d5e6f70d3c6a6e8f3b/files",
    "result": {
        "files": [{"name": "support.gguf", "size_bytes": 1321083008, "sha256": "9f86d081884c7d65" * 4}],
        "notes": [],
        "verification": {
            "loader": "llama.cpp (xllamacpp)",
            "compared_tokens": 16,
            "same_tokens": 16,
            "margin": None,
        },
        "approximation": None,
        "ollama_model": None,
    },
}
CANCELLED: dict[str, Any] = QUEUED | {"status": "cancelled", "step": "done", "completed_at": "2024-01-15T11:15:09Z"}
LIST: dict[str, Any] = {"exports": [DONE], "next_cursor": None}
DELETED: dict[str, Any] = {"success": True, "export_id": QUEUED["export_id"]}
