"""An adapter that a job made, as it lies in the store, for tests of where it is published."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.adapters.lineages import draw_up
from infra.adapters.records import made_adapter
from infra.adapters.store import adapter_id_of, store
from infra.registries.__main__ import answer_to
from infra.settings import Settings
from peft_studio.adapters import Adapter
from peft_studio.config import TrainingConfig
from peft_studio.events import now
from peft_studio.jobs import TrainingSummary
from peft_studio.plan import DatasetFacts, ModelFacts, Plan
from peft_studio.row_formats import RowFormat

JOB = "job_" + "0a" * 16
CONFIG: dict[str, Any] = {"base_model": "org/model", "dataset_path": "/data/rows.jsonl", "rank": 4, "seed": 7}
SUMMARY = TrainingSummary(
    total_steps=3,
    epochs=1,
    final_loss=0.5,
    best_loss=0.4,
    train_rows=9,
    held_out_rows=1,
    tokens=100,
    supervised_tokens=50,
    tokens_per_second=10,
    seconds=10,
    peak_memory_mb=100,
    trainable_parameters=1000,
    versions={"python": "3.11.1", "torch": "2.0.0"},
)


async def here(order: bytes, environment: Mapping[str, str], seconds: float) -> bytes:
    """Push from this process: a hundred starts of another would take minutes."""
    return await asyncio.to_thread(answer_to, order)


def plan(**changes: Any) -> Plan:
    config = TrainingConfig.model_validate(CONFIG | changes)
    model = ModelFacts(
        id="org/model",
        revision="c" * 40,
        architecture="LlamaForCausalLM",
        parameters=1000,
        linear_modules=["q_proj"],
        license="apache-2.0",
        chat_template_sha256="d" * 64,
    )
    dataset = DatasetFacts(
        path="/data/rows.jsonl", sha256="e" * 64, format=RowFormat.TEXT, rows=10, bytes=100, characters=90
    )
    return Plan(
        config=config,
        model=model,
        dataset=dataset,
        cache_key="k",
        total_steps=3,
        estimated_cost=0,
        estimated_duration_minutes=1,
    )


def stored(
    settings: Settings, scratch: Path, weights: bytes = b"weights", job_id: str = JOB, **changes: Any
) -> Adapter:
    """Store an adapter as the flow does."""
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "adapter_model.safetensors").write_bytes(weights)
    (scratch / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "target_modules": ["q_proj"]}))
    (scratch / "README.md").write_text("what PEFT writes")
    planned = plan(**changes)
    lineage = draw_up(job_id, planned, job_id, SUMMARY, 0.25, settings)
    adapter_id, artifact = store(scratch, job_id, planned.config, settings, lineage)
    assert adapter_id == adapter_id_of(job_id)
    return made_adapter(job_id, planned.config, artifact, now())
