"""Examples that the API's documentation shows: one job, from request to result, and what surrounds it."""

from typing import Any

CONFIG: dict[str, Any] = {
    "base_model": "meta-llama/Llama-2-7b-hf",
    "model_source": "huggingface",
    "algorithm": "lora",
    "rank": 8,
    "alpha": 16,
    "dropout": 0.05,
    "target_modules": ["q_proj", "v_proj"],
    "quantization": "int4",
    "learning_rate": 2e-4,
    "batch_size": 4,
    "gradient_accumulation_steps": 4,
    "num_epochs": 3,
    "warmup_steps": 100,
    "provider": "runpod",
    "resource_id": "gpu-rtx4090",
    "dataset_path": "/path/to/dataset.json",
    "validation_split": 0.1,
    "experiment_tracker": "wandb",
    "project_name": "my-finetuning",
    "output_dir": "./output",
    "checkpoint_steps": 100,
}

CREATED: dict[str, Any] = {
    "job_id": "job_0d3c6a6e8f3b4c0e9a51c2f3b4d5e6f7",
    "status": "pending",
    "created_at": "2024-01-15T10:30:00Z",
    "estimated_cost": 2.50,
    "estimated_duration_minutes": 45,
}

RUNNING: dict[str, Any] = {
    "job_id": CREATED["job_id"],
    "config": CONFIG,
    "status": "running",
    "phase": "training",
    "progress": 0.45,
    "created_at": "2024-01-15T10:30:00Z",
    "started_at": "2024-01-15T10:31:00Z",
    "metrics": {"loss": 0.523, "learning_rate": 0.0002, "epoch": 1.5},
}

COMPLETED: dict[str, Any] = {
    "job_id": CREATED["job_id"],
    "config": CONFIG,
    "status": "completed",
    "phase": "done",
    "progress": 1.0,
    "created_at": "2024-01-15T10:30:00Z",
    "started_at": "2024-01-15T10:31:00Z",
    "completed_at": "2024-01-15T11:15:00Z",
    "duration_seconds": 2640,
    "cost": 2.45,
    "metrics": {"final_loss": 0.234, "best_loss": 0.221, "total_steps": 1000},
    "artifact": {"path": "/path/to/adapter.safetensors", "size_bytes": 16777216, "hash": "sha256:9f86d081884c7d65"},
    "termination_reason": "completed",
    "adapter_id": "adapter_0d3c6a6e8f3b4c0e9a51c2f3b4d5e6f7",
}

CANCELLED: dict[str, Any] = {"success": True, "job_id": CREATED["job_id"], "status": "cancelled"}

LOGS: dict[str, Any] = {
    "logs": [
        {"timestamp": "2024-01-15T10:31:05Z", "level": "INFO", "message": "Starting training..."},
        {
            "timestamp": "2024-01-15T10:31:10Z",
            "level": "INFO",
            "message": "Epoch 1/3, Step 10/1000, Loss: 0.523",
        },
    ]
}


ADAPTER: dict[str, Any] = {
    "id": "adapter_0d3c6a6e8f3b4c0e9a51c2f3b4d5e6f7",
    "job_id": CREATED["job_id"],
    "name": "my-finetuning",
    "base_model": "meta-llama/Llama-2-7b-hf",
    "algorithm": "lora",
    "path": "/path/to/adapter_model.safetensors",
    "size_bytes": 16777216,
    "created_at": "2024-01-15T11:15:00Z",
    "metadata": {"rank": 8, "alpha": 16, "target_modules": ["q_proj", "v_proj"]},
}

UPLOADED: dict[str, Any] = {
    "adapter_id": "adapter_3f0b8a52c1d94d0f8a6be2c7d5a1e940",
    "registry_url": "http://localhost:8000/api/v1/adapters/adapter_3f0b8a52c1d94d0f8a6be2c7d5a1e940/download",
    "success": True,
}

ADAPTER_DELETED: dict[str, Any] = {"success": True, "adapter_id": ADAPTER["id"]}

DEPLOY: dict[str, Any] = {
    "adapter_id": ADAPTER["id"],
    "platform": "local",
    "config": {"instance_type": "local", "min_replicas": 1, "max_replicas": 1, "auto_scaling": False},
}

DEPLOYING: dict[str, Any] = {
    "deployment_id": "deploy_7c1f5d3b9ae84a63b0a5d1f2c3e4b5a6",
    "status": "deploying",
    "endpoint": None,
    "estimated_ready_time": "2024-01-15T11:20:00Z",
}

SERVING: dict[str, Any] = {
    "deployment_id": DEPLOYING["deployment_id"],
    "status": "running",
    "error": None,
    **DEPLOY,
    "endpoint": "http://127.0.0.1:41807/v1",
    "engine": "endpoint",
    "effect": {
        "verdict": "effective",
        "reason": "The adapter answers as at the end of its training.",
        "effect": 2.31,
        "deviation": 0.004,
        "tolerance": 0.15,
    },
    "reason": None,
    "created_at": "2024-01-15T11:15:00Z",
    "expires_at": None,
    "warning": None,
    "flow_run_id": "0b4f3f8e-6a31-4c0a-9a51-c2f3b4d5e6f7",
    "metrics": {"requests_per_minute": 45, "avg_latency_ms": 120.0, "cost_per_hour": 0.0, "measured_by": "platform"},
}

PROMPT: dict[str, Any] = {"prompt": "Once upon a time", "max_tokens": 100, "temperature": 0.7}

ANSWERED: dict[str, Any] = {
    "response": "Once upon a time, in a land far away...",
    "latency_ms": 125.0,
    "tokens_generated": 50,
}

DEPLOYMENT_DELETED: dict[str, Any] = {"success": True, "deployment_id": DEPLOYING["deployment_id"]}

EXPERIMENT: dict[str, Any] = {
    "id": "exp_0d3c6a6e8f3b4c0e9a51c2f3b4d5e6f7",
    "tracker": "local",
    "project": "my-finetuning",
    "name": "my-finetuning lora r8",
    "status": "completed",
    "metrics": {"final_loss": 0.234, "best_loss": 0.221, "accuracy": 0.89, "total_steps": 1000},
    "config": CONFIG,
    "created_at": "2024-01-15T10:30:00Z",
    "job_id": CREATED["job_id"],
    "cost": 2.45,
    "duration_seconds": 2640,
}

EXPERIMENTS: dict[str, Any] = {"experiments": [EXPERIMENT], "next_cursor": None, "unavailable_trackers": []}

COMPARE: dict[str, Any] = {"experiment_ids": [EXPERIMENT["id"], "exp_0d3c6a6f1b2a4d5c8e7f60718293a4b5"]}

COMPARISON: dict[str, Any] = {
    "comparison": {
        "experiment_ids": COMPARE["experiment_ids"],
        "metrics": {"loss": [0.234, 0.256], "accuracy": [0.89, 0.87]},
        "configs": [CONFIG, CONFIG | {"rank": 4}],
        "config_differences": {"rank": [8, 4]},
        "metric": "accuracy",
        "direction": "maximize",
        "best_performer": EXPERIMENT["id"],
        "cost_analysis": {"total_costs": [2.45, 3.20], "cost_per_accuracy_point": [0.0275, 0.0368]},
        "curves": {"loss": {"steps": [1, 2], "values": [[1.2, 0.234], [1.3, 0.256]]}},
    },
    "pictures": {
        kind: f"/api/v1/experiments/compare?ids={'%2C'.join(COMPARE['experiment_ids'])}&format={kind}"
        for kind in ("png", "svg")
    },
}


DATASET: dict[str, Any] = {
    "dataset_id": "dataset_018d0d3cf8f37c0e9a51c2f3b4d5e6f7",
    "name": "support.jsonl",
    "format": "messages",
    "file_type": "jsonl",
    "rows": 800,
    "size_bytes": 251904,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "characters": 198213,
    "created_at": "2024-01-15T10:20:00Z",
    "path": "/var/lib/peft-studio/datasets/dataset_018d0d3cf8f37c0e9a51c2f3b4d5e6f7/rows.jsonl",
}

UPLOAD: dict[str, Any] = {
    "upload_id": "upload_018d0d3cf8f37c0e9a51c2f3b4d5e6f7",
    "offset": 0,
    "length": 251904,
    "expires_at": "2024-01-16T10:20:00Z",
}

PREVIEW: dict[str, Any] = {
    "base_model": "demo/model",
    "samples": [
        {
            "row": 1,
            "text": "<|user|>Hi<|assistant|>Hello!<|end|>",
            "tokens": [
                {"id": 3, "text": "<|user|>", "loss": False},
                {"id": 811, "text": "Hi", "loss": False},
                {"id": 4, "text": "<|assistant|>", "loss": False},
                {"id": 902, "text": "Hello!", "loss": True},
                {"id": 2, "text": "<|end|>", "loss": True},
            ],
            "supervised_tokens": 2,
            "truncated": False,
        }
    ],
    "examined_rows": 800,
    "tokens": 41210,
    "supervised_share": 0.43,
    "truncated_rows": 0,
    "dropped_rows": 0,
    "split_rows": 0,
    "duplicate_rows": [117],
    "empty_rows": [],
}


CONNECT: dict[str, Any] = {"credentials": {"api_key": "your_api_key_here"}}

PLATFORM: dict[str, Any] = {
    "name": "runpod",
    "display_name": "RunPod",
    "status": "connected",
    "features": ["training", "inference"],
    "supported_features": [],
    "last_verified": "2024-01-15T10:30:00Z",
    "credentials": [{"name": "api_key", "description": "An API key of the account.", "required": True, "secret": True}],
    "docs": "https://docs.runpod.io/get-started/api-keys",
}

PLATFORMS: dict[str, Any] = {"platforms": [PLATFORM | {"error": None}]}

PLATFORM_CONNECTED: dict[str, Any] = {"success": True, "platform": "runpod", "status": "connected"}

PLATFORM_DISCONNECTED: dict[str, Any] = {"success": True, "message": "Platform disconnected"}


def error(code: str, message: str, **details: Any) -> dict[str, Any]:
    """Show an error as a caller gets it."""
    return {"error": {"code": code, "message": message, "details": details}}


ERRORS: dict[int, dict[str, Any]] = {
    400: error(
        "INVALID_CONFIG",
        "Training configuration is invalid.",
        field="learning_rate",
        issue="Must be between 1e-6 and 1e-2",
        errors=[{"field": "learning_rate", "issue": "Must be between 1e-6 and 1e-2"}],
    ),
    401: error("AUTHENTICATION_FAILED", "The API key is not valid; it may have been revoked or mistyped."),
    402: error("INSUFFICIENT_CREDITS", "The platform's account has too little credit."),
    403: error("PERMISSION_DENIED", "This API key may only read; use one with the role write.", role="read"),
    404: error("JOB_NOT_FOUND", "There is no job 'job_abc123'.", job_id="job_abc123"),
    409: error("PLATFORM_NOT_CONNECTED", "The platform is not connected.", platform="runpod"),
    412: error("PRECONDITION_FAILED", "This API speaks version 1.0.0 of tus.", expected="1.0.0"),
    413: error("PAYLOAD_TOO_LARGE", "The request body is too large."),
    415: error(
        "UNSUPPORTED_MEDIA_TYPE",
        "The request body must be application/json, not text/plain.",
        expected="application/json",
    ),
    416: error("RANGE_NOT_SATISFIABLE", "The file has 16777216 bytes.", size_bytes=16777216),
    429: error(
        "RATE_LIMIT_EXCEEDED",
        "This API key may make 100 requests a minute; try again in 12 s.",
        retry_after_seconds=12,
    ),
    500: error("INTERNAL_ERROR", "Something went wrong inside the studio.", reference="4be1c2a09d57"),
    503: error("RESOURCE_UNAVAILABLE", "No worker takes jobs at the moment; start one, or wait for it."),
}
