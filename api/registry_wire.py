"""Envelopes and examples of publishing adapters and of training them again."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api import examples
from api.wire import JobCreated, Whole
from infra.adapters.reproduction import Difference
from peft_studio.lineage import Lineage
from peft_studio.registries import Publication, Registries

REGISTRIES: list[dict[str, Any]] = [
    {"kind": "huggingface", "repository": "me/my-adapter", "private": True},
    {"kind": "s3", "url": "s3://my-bucket/adapters"},
]
PUBLISH: dict[str, Any] = {"registries": REGISTRIES}
PUBLISHING: dict[str, Any] = {
    "adapter_id": examples.ADAPTER["id"],
    "registry_url": None,
    "registries": [
        {
            "registry": registry,
            "status": "pending",
            "version": None,
            "revision": None,
            "url": None,
            "error": None,
            "at": "2024-01-15T11:15:00Z",
        }
        for registry in REGISTRIES
    ],
}
REPRODUCED: dict[str, Any] = {**examples.CREATED, "differences": {"torch": {"then": "2.12.0", "now": "2.13.0"}}}
LINEAGE: dict[str, Any] = {
    "format": 1,
    "adapter_id": examples.ADAPTER["id"],
    "job_id": examples.CREATED["job_id"],
    "trained_by": examples.CREATED["job_id"],
    "created_at": "2024-01-15T11:15:00Z",
    "base_model": {
        "id": "meta-llama/Llama-2-7b-hf",
        "source": "huggingface",
        "revision": "01c7f73d771dfac7d292323805ebc428287df4f9",
        "architecture": "LlamaForCausalLM",
        "license": "llama2",
        "chat_template_sha256": None,
    },
    "dataset": {
        "path": "/path/to/dataset.json",
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "format": "instruction",
        "rows": 5926,
    },
    "config": {"base_model": "meta-llama/Llama-2-7b-hf", "dataset_path": "/path/to/dataset.json", "rank": 8},
    "seed": 0,
    "versions": {"python": "3.11.9", "torch": "2.13.0", "peft": "0.21.0"},
    "machine": {"provider": "runpod", "resource_id": "gpu-rtx4090", "gpus": ["RTX 4090"], "cpu_cores": None},
    "cost": 2.45,
    "training": {
        "total_steps": 1000,
        "epochs": 3.0,
        "final_loss": 0.234,
        "best_loss": 0.221,
        "train_rows": 5333,
        "held_out_rows": 593,
        "tokens": 4500000,
        "supervised_tokens": 1500000,
        "tokens_per_second": 1800.0,
        "seconds": 2500.0,
        "peak_memory_mb": 18000.0,
        "trainable_parameters": 4194304,
    },
    "evaluation": None,
    "files": {
        "adapter_model.safetensors": {
            "size_bytes": 16777216,
            "sha256": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
        }
    },
}


class PublishAdapter(BaseModel):
    """A request to publish an adapter."""

    model_config = ConfigDict(extra="forbid")

    registries: Registries = Field(min_length=1, description="Where to.")


class AdapterPublishing(Whole):
    """An adapter that is being published; ``GET /adapters/{adapter_id}`` tells what comes of it."""

    adapter_id: str
    registry_url: str | None = Field(description="Where it is published already.")
    registries: Sequence[Publication]


class Reproduce(BaseModel):
    """A request to train an adapter again."""

    model_config = ConfigDict(extra="forbid")

    lineage: Lineage = Field(description="The adapter's lineage.json, from this studio or another.")


class JobReproduced(JobCreated):
    """A job that trains an adapter again."""

    differences: Mapping[str, Difference] = Field(
        default={}, description="Packages that are of another version here than where it was trained, by name."
    )
