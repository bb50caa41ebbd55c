"""
What users were promised, example by example: the facts of the API's document, transcribed.

``...`` stands where the document leaves something out.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Promise:
    """
    An example: the request, and the body of its answer.

    ``title`` is the heading in the document; ``form`` names the parts of a request that is no JSON.
    """

    title: str
    method: str
    path: str
    answer: Any
    body: Any = None
    form: tuple[str, ...] = ()


PROMISES = [
    Promise(
        "List Platforms",
        "GET",
        "/platforms",
        answer={
            "platforms": [
                {
                    "name": "runpod",
                    "display_name": "RunPod",
                    "status": "connected",
                    "features": ["training", "inference"],
                    "last_verified": "2024-01-15T10:30:00Z",
                }
            ]
        },
    ),
    Promise(
        "Connect Platform",
        "POST",
        "/platforms/{platform_name}/connect",
        body={"credentials": {"api_key": "your_api_key_here"}},
        answer={"success": True, "platform": "runpod", "status": "connected"},
    ),
    Promise(
        "Disconnect Platform",
        "DELETE",
        "/platforms/{platform_name}",
        answer={"success": True, "message": "Platform disconnected"},
    ),
    Promise(
        "Search Models",
        "GET",
        "/models/search?q={query}&source={source}&limit={limit}",
        answer={
            "models": [
                {
                    "id": "meta-llama/Llama-2-7b-hf",
                    "name": "Llama 2 7B",
                    "source": "huggingface",
                    "size_gb": 13.5,
                    "license": "llama2",
                    "downloads": 1500000,
                    "tags": ["text-generation", "llama"],
                }
            ],
            "total": 150,
            "page": 1,
        },
    ),
    Promise(
        "Get Model Details",
        "GET",
        "/models/{source}/{model_id}",
        answer={
            "id": "meta-llama/Llama-2-7b-hf",
            "name": "Llama 2 7B",
            "source": "huggingface",
            "description": "Llama 2 7B parameter model",
            "size_gb": 13.5,
            "license": "llama2",
            "architecture": "LlamaForCausalLM",
            "context_length": 4096,
            "hardware_requirements": {"min_vram_gb": 16, "recommended_vram_gb": 24},
            "compatible_algorithms": ["lora", "qlora", "dora"],
        },
    ),
    Promise(
        "Create Training Job",
        "POST",
        "/jobs",
        body={
            "config": {
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
        },
        answer={
            "job_id": "job_abc123",
            "status": "pending",
            "created_at": "2024-01-15T10:30:00Z",
            "estimated_cost": 2.50,
            "estimated_duration_minutes": 45,
        },
    ),
    Promise(
        "List Jobs",
        "GET",
        "/jobs?status={status}&provider={provider}&limit={limit}",
        answer={
            "jobs": [
                {
                    "job_id": "job_abc123",
                    "config": ...,
                    "status": "running",
                    "progress": 0.45,
                    "created_at": "2024-01-15T10:30:00Z",
                    "started_at": "2024-01-15T10:31:00Z",
                    "metrics": {"loss": 0.523, "learning_rate": 0.0002, "epoch": 1.5},
                }
            ],
            "total": 10,
        },
    ),
    Promise(
        "Get Job Details",
        "GET",
        "/jobs/{job_id}",
        answer={
            "job_id": "job_abc123",
            "config": ...,
            "status": "completed",
            "progress": 1.0,
            "created_at": "2024-01-15T10:30:00Z",
            "started_at": "2024-01-15T10:31:00Z",
            "completed_at": "2024-01-15T11:15:00Z",
            "duration_seconds": 2640,
            "cost": 2.45,
            "metrics": {"final_loss": 0.234, "best_loss": 0.221, "total_steps": 1000},
            "artifact": {"path": "/path/to/adapter.safetensors", "size_bytes": 16777216, "hash": "sha256:abc123..."},
        },
    ),
    Promise(
        "Cancel Job",
        "POST",
        "/jobs/{job_id}/cancel",
        answer={"success": True, "job_id": "job_abc123", "status": "cancelled"},
    ),
    Promise(
        "Get Job Logs",
        "GET",
        "/jobs/{job_id}/logs?lines={lines}",
        answer={
            "logs": [
                {"timestamp": "2024-01-15T10:31:05Z", "level": "INFO", "message": "Starting training..."},
                {
                    "timestamp": "2024-01-15T10:31:10Z",
                    "level": "INFO",
                    "message": "Epoch 1/3, Step 10/1000, Loss: 0.523",
                },
            ]
        },
    ),
    Promise(
        "List Resources",
        "GET",
        "/resources?provider={provider}&available={available}",
        answer={
            "resources": [
                {
                    "id": "gpu-rtx4090",
                    "provider": "runpod",
                    "name": "RTX 4090",
                    "gpu_type": "RTX 4090",
                    "gpu_count": 1,
                    "vram_gb": 24,
                    "cpu_cores": 16,
                    "ram_gb": 64,
                    "storage_gb": 500,
                    "available": True,
                    "pricing": {"hourly_rate": 0.69, "currency": "USD"},
                }
            ]
        },
    ),
    Promise(
        "Get Resource Pricing",
        "GET",
        "/resources/{provider}/{resource_id}/pricing",
        answer={
            "resource_id": "gpu-rtx4090",
            "provider": "runpod",
            "pricing": {"hourly_rate": 0.69, "currency": "USD", "billing_increment": 60, "minimum_charge": 0.69},
            "availability": {"available": True, "queue_length": 0, "estimated_wait_minutes": 0},
        },
    ),
    Promise(
        "List Adapters",
        "GET",
        "/adapters?job_id={job_id}&limit={limit}",
        answer={
            "adapters": [
                {
                    "id": "adapter_xyz789",
                    "job_id": "job_abc123",
                    "name": "my-llama2-adapter",
                    "base_model": "meta-llama/Llama-2-7b-hf",
                    "algorithm": "lora",
                    "path": "/path/to/adapter.safetensors",
                    "size_bytes": 16777216,
                    "created_at": "2024-01-15T11:15:00Z",
                    "metadata": {"rank": 8, "alpha": 16, "target_modules": ["q_proj", "v_proj"]},
                }
            ]
        },
    ),
    Promise(
        "Upload Adapter",
        "POST",
        "/adapters/upload",
        form=("file", "metadata"),
        answer={"adapter_id": "adapter_xyz789", "registry_url": "https://huggingface.co/user/model", "success": True},
    ),
    Promise(
        "Create Deployment",
        "POST",
        "/deployments",
        body={
            "adapter_id": "adapter_xyz789",
            "platform": "predibase",
            "config": {"instance_type": "gpu-t4", "min_replicas": 1, "max_replicas": 3, "auto_scaling": True},
        },
        answer={
            "deployment_id": "deploy_def456",
            "status": "deploying",
            "endpoint": None,
            "estimated_ready_time": "2024-01-15T11:20:00Z",
        },
    ),
    Promise(
        "List Deployments",
        "GET",
        "/deployments?status={status}",
        answer={
            "deployments": [
                {
                    "deployment_id": "deploy_def456",
                    "adapter_id": "adapter_xyz789",
                    "platform": "predibase",
                    "status": "running",
                    "endpoint": "https://api.predibase.com/v1/deployments/deploy_def456",
                    "created_at": "2024-01-15T11:15:00Z",
                    "metrics": {"requests_per_minute": 45, "avg_latency_ms": 120, "cost_per_hour": 0.5},
                }
            ]
        },
    ),
    Promise(
        "Test Deployment",
        "POST",
        "/deployments/{deployment_id}/test",
        body={"prompt": "Once upon a time", "max_tokens": 100, "temperature": 0.7},
        answer={"response": "Once upon a time, in a land far away...", "latency_ms": 125, "tokens_generated": 50},
    ),
    Promise(
        "List Experiments",
        "GET",
        "/experiments?tracker={tracker}&project={project}",
        answer={
            "experiments": [
                {
                    "id": "exp_ghi789",
                    "tracker": "wandb",
                    "project": "my-finetuning",
                    "name": "llama2-lora-run1",
                    "status": "completed",
                    "metrics": {"final_loss": 0.234, "best_loss": 0.221, "accuracy": 0.89},
                    "config": ...,
                    "created_at": "2024-01-15T10:30:00Z",
                }
            ]
        },
    ),
    Promise(
        "Compare Experiments",
        "POST",
        "/experiments/compare",
        body={"experiment_ids": ["exp_ghi789", "exp_jkl012"]},
        answer={
            "comparison": {
                "metrics": {"loss": [0.234, 0.256], "accuracy": [0.89, 0.87]},
                "configs": [...],
                "best_performer": "exp_ghi789",
                "cost_analysis": {"total_costs": [2.45, 3.2], "cost_per_accuracy_point": [0.0275, 0.0368]},
            }
        },
    ),
]

MESSAGES: dict[str, Any] = {
    "Status Update": {
        "type": "status",
        "job_id": "job_abc123",
        "status": "running",
        "timestamp": "2024-01-15T10:31:00Z",
    },
    "Metrics Update": {
        "type": "metrics",
        "job_id": "job_abc123",
        "metrics": {"loss": 0.523, "learning_rate": 0.0002, "epoch": 1.5, "step": 150},
        "timestamp": "2024-01-15T10:35:00Z",
    },
    "Log Message": {
        "type": "log",
        "job_id": "job_abc123",
        "level": "INFO",
        "message": "Epoch 1/3 completed",
        "timestamp": "2024-01-15T10:40:00Z",
    },
    "Error": {
        "type": "error",
        "job_id": "job_abc123",
        "error": "Out of memory",
        "details": "GPU memory exceeded",
        "timestamp": "2024-01-15T10:45:00Z",
    },
}

ERROR: dict[str, Any] = {
    "error": {
        "code": "INVALID_CONFIG",
        "message": "Training configuration is invalid",
        "details": {"field": "learning_rate", "issue": "Must be between 1e-6 and 1e-2"},
    }
}

# Code, and what it is said to mean.
CODES = {
    "INVALID_CONFIG": "Configuration validation failed",
    "PLATFORM_NOT_CONNECTED": "Platform not connected",
    "INSUFFICIENT_CREDITS": "Insufficient credits on platform",
    "RESOURCE_UNAVAILABLE": "Requested resource not available",
    "JOB_NOT_FOUND": "Job ID not found",
    "RATE_LIMIT_EXCEEDED": "API rate limit exceeded",
    "AUTHENTICATION_FAILED": "Invalid API key",
    "INTERNAL_ERROR": "Internal server error",
}

BASE_URL = "http://localhost:8000/api/v1"
SOCKET_URL = "ws://localhost:8000/ws/jobs/{job_id}"
REQUESTS_A_MINUTE = 100
SOCKETS_A_KEY = 10

# Query parameters that are left out count as these.
DEFAULTS = {
    ("Search Models", "limit"): 20,
    ("List Jobs", "limit"): 20,
    ("Get Job Logs", "lines"): 100,
}
