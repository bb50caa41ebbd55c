"""A job on a well-known model, and machines to rent for it, for tests that need neither torch nor a vendor."""

from typing import Any

from infra.providers.base import Offer
from peft_studio.config import TrainingConfig
from peft_studio.plan import DatasetFacts, LinearLayers, ModelFacts
from peft_studio.row_formats import RowFormat

# Llama 2 7B, from its published shapes: 32 blocks of 4096, 11008 in between, 32000 tokens.
SIDES = 32 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
LINEAR = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
LAYERS = [
    *(LinearLayers(name=f"{name}_proj", rows=4096, columns=4096, count=32) for name in "qkvo"),
    *(LinearLayers(name=f"{name}_proj", rows=11008, columns=4096, count=32) for name in ("gate", "up")),
    LinearLayers(name="down_proj", rows=4096, columns=11008, count=32),
]
LLAMA = ModelFacts(
    id="llama",
    architecture="LlamaForCausalLM",
    parameters=6_738_415_616,
    linear_modules=["q_proj"],
    linear_parameters=LINEAR,
    linear_sides=SIDES,
    linear_layers=LAYERS,
    norm_parameters=65 * 4096,
    width=4096,
    key_width=4096,
    vocabulary=32_000,
    layers=32,
    context_length=4096,
)
DATA = DatasetFacts(path="d", sha256="0" * 64, format=RowFormat.TEXT, rows=1000, bytes=1, characters=4_000_000)


def config(**changes: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({"base_model": "m", "dataset_path": "d"} | changes)


def offer(resource_id: str, rate: float, **changes: Any) -> Offer:
    given = {"provider": "runpod", "name": resource_id, "gpu_type": None, "gpu_count": 1, "vram_gb": None}
    terms = {"hourly_rate": rate, "billing_increment": 1, "minimum_charge": 0.0, "boot_seconds": 30.0}
    return Offer.model_validate(given | terms | {"resource_id": resource_id} | changes)
