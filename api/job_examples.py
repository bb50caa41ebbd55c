"""Examples that the API's documentation shows of planning, steering and looking back at jobs."""

from typing import Any

from api.examples import CONFIG, CREATED

ESTIMATE: dict[str, Any] = {
    "cost": {"low": 0.31, "expected": 0.52, "high": 1.9},
    "minutes": {"low": 27, "expected": 45, "high": 165},
    "measured_jobs": 0,
}

PLAN: dict[str, Any] = {
    "config": CONFIG,
    "model": {
        "id": "meta-llama/Llama-2-7b-hf",
        "revision": "01c7f73d771dfac7d292323805ebc428287df4f9",
        "path": None,
        "architecture": "LlamaForCausalLM",
        "parameters": 6738415616,
        "linear_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "context_length": 4096,
        "has_chat_template": False,
        "license": "llama2",
    },
    "dataset": {
        "path": "/path/to/dataset.json",
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "format": "instruction",
        "rows": 5926,
        "bytes": 4194304,
        "characters": 4063232,
    },
    "total_steps": 1000,
    "estimated_cost": 0.52,
    "estimated_duration_minutes": 45,
    "tokens": 2743372,
    "needed_vram_gb": 16.7,
    "estimate": ESTIMATE,
    "offers": [
        {
            "provider": "runpod",
            "resource_id": "gpu-rtx4090",
            "name": "RTX 4090 (secure cloud)",
            "gpu_type": "RTX 4090",
            "gpu_count": 1,
            "vram_gb": 24,
            "spot": False,
            "hourly_rate": 0.69,
            "estimate": ESTIMATE,
        }
    ],
    "conversion": {
        "target": "vllm",
        "format": "lora",
        "rank": 16,
        "reason": "vllm reads one rank and one alpha for all layers: shorter ones are filled up with zeros",
    },
    "cache_key": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "reused_from": None,
}

PAUSED: dict[str, Any] = {"success": True, "job_id": CREATED["job_id"], "status": "pending", "phase": "paused"}
RESUMED: dict[str, Any] = {"success": True, "job_id": CREATED["job_id"], "status": "pending", "phase": "queued"}

PROMOTE: dict[str, Any] = {"reason": "The held-out rows are outdated; support has compared 50 answers by hand."}
PROMOTED: dict[str, Any] = {
    "success": True,
    "job_id": CREATED["job_id"],
    "deployment_id": "deploy_7c1f5d3b9ae84a63b0a5d1f2c3e4b5a6",
    "promotion": {
        "rule": {"measure": "loss", "min_gain": 0.0},
        "allowed": False,
        "reason": "The gain in loss is 0.1 on 40 held-out rows, with 0.95 confidence at least -0.05; at least 0 was "
        "asked for.",
        "comparison": {
            "base": 2.0,
            "adapter": 1.9,
            "difference": -0.1,
            "low": -0.25,
            "high": 0.05,
            "rows": 40,
            "differing": 40,
            "better": "lower",
        },
        "override": {
            "key_id": "3f0b8a52c1d9",
            "key_name": "operations",
            "at": "2024-01-15T11:20:00Z",
            **PROMOTE,
        },
    },
}

CHECKPOINT: dict[str, Any] = {
    "step": 450,
    "epoch": 1.35,
    "path": "/path/to/runs/job_0d3c6a6e8f3b4c0e9a51c2f3b4d5e6f7/checkpoints/step-450",
    "size_bytes": 50331648,
    "created_at": "2024-01-15T10:51:00Z",
    "loss": 0.523,
}
CHECKPOINT_SAVED: dict[str, Any] = {"success": True, "job_id": CREATED["job_id"], "checkpoint": CHECKPOINT}
CHECKPOINTS: dict[str, Any] = {"checkpoints": [CHECKPOINT]}

METRICS: dict[str, Any] = {
    "job_id": CREATED["job_id"],
    "metrics": [
        {
            "step": 150,
            "epoch": 0.45,
            "loss": 0.523,
            "learning_rate": 0.0002,
            "grad_norm": 0.81,
            "tokens_per_second": 5120.0,
            "total_steps": 1000,
            "timestamp": "2024-01-15T10:35:00Z",
        },
        {"step": 333, "epoch": 1.0, "eval_loss": 0.498, "timestamp": "2024-01-15T10:46:00Z"},
    ],
}

STREAM = (
    "id: 7\nevent: metrics\n"
    'data: {"job_id":"job_0d3c6a6e8f3b4c0e9a51c2f3b4d5e6f7","timestamp":"2024-01-15T10:35:00Z","type":"metrics",'
    '"metrics":{"loss":0.523,"learning_rate":0.0002,"epoch":1.5,"step":150},"cursor":"7"}\n\n'
)
