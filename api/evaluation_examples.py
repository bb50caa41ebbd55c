"""Examples of evaluations, for the API's document."""

from typing import Any

WANTED: dict[str, Any] = {
    "adapter_id": "adapter_0d3c6a6e8f3b4c0e9a51c2f3b4d5e6f7",
    "dataset": "/path/to/held-out.jsonl",
    "generation_rows": 64,
    "judge": {"model": "judge-model", "url": "https://models.example.com/v1"},
}
_CONFIG: dict[str, Any] = {
    "rows": 1000,
    "measures": None,
    "lm_eval": None,
    "max_new_tokens": 128,
    "bootstrap": {"resamples": 2000, "confidence": 0.95, "seed": 0},
    **WANTED,
}

QUEUED: dict[str, Any] = {
    "evaluation_id": "evaluation_4c0e9a51c2f3b4d5e6f70d3c6a6e8f3b",
    "adapter_id": WANTED["adapter_id"],
    "config": _CONFIG,
    "status": "pending",
    "step": "queued",
    "progress": 0.0,
    "created_at": "2024-01-15T11:15:00Z",
    "started_at": None,
    "completed_at": None,
    "result": None,
    "error": None,
}
DONE: dict[str, Any] = QUEUED | {
    "status": "completed",
    "step": "done",
    "progress": 1.0,
    "started_at": "2024-01-15T11:15:01Z",
    "completed_at": "2024-01-15T11:18:40Z",
    "result": {
        "evaluation": {
            "held_out_rows": 200,
            "base": {"loss": 2.91, "perplexity": 18.36, "accuracy": 0.41, "tokens": 14210, "metrics": {}},
            "adapter": {"loss": 1.2, "perplexity": 3.32, "accuracy": 0.72, "tokens": 14210, "metrics": {}},
            "answer": {"prompt": "Where is my order?", "base": "I am a model.", "adapter": "On its way."},
            "comparison": {
                "loss": {
                    "base": 2.91,
                    "adapter": 1.2,
                    "difference": -1.71,
                    "low": -1.8,
                    "high": -1.61,
                    "rows": 200,
                    "differing": 200,
                    "better": "lower",
                }
            },
            "generation": {"rows": 64, "max_new_tokens": 128, "cut": 1},
            "bootstrap": _CONFIG["bootstrap"],
        },
        "notes": [],
        "lm_eval": {},
        "judge": {
            "model": "judge-model",
            "rows": 63,
            "unreadable": 1,
            "adapter_wins": 48,
            "base_wins": 5,
            "ties": 10,
            "win_rate": 0.84,
            "low": 0.77,
            "high": 0.91,
        },
    },
}
CANCELLED: dict[str, Any] = QUEUED | {"status": "cancelled", "step": "done", "completed_at": "2024-01-15T11:15:09Z"}
LIST: dict[str, Any] = {"evaluations": [DONE], "next_cursor": None}
DELETED: dict[str, Any] = {"success": True, "evaluation_id": QUEUED["evaluation_id"]}
