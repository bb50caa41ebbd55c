"""
vLLM's rules for the adapters that it loads, held against an adapter's folder: nothing of vLLM is needed.

From its source (github.com/vllm-project/vllm): ``vllm/lora/peft_helper.py`` for the configuration,
``vllm/lora/utils.py`` and ``vllm/lora/lora_model.py`` for the names of weights, ``vllm/config/lora.py`` for the ranks.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from peft_studio.adapter_config import CONFIG
from peft_studio.adapter_files import WEIGHTS
from peft_studio.model_files import read_object
from peft_studio.safetensors_files import read_header

MAX_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank can be; 16 where it is left out
_REQUIRED = ("r", "lora_alpha", "target_modules")
_WEIGHT = re.compile(r"(?:.*\.)?(?:lora_[AB]\.weight|lora_embedding_[AB])")
_BESIDE = ("lm_head", "embed_tokens")  # which models take an adapter only where they name them as such
# It scales every layer by the one lora_alpha and r of the configuration, and does not read these: such an adapter
# would be loaded, and computed with the wrong scale.
_NOT_READ = ("rank_pattern", "alpha_pattern", "layer_replication", "trainable_token_indices")


def broken_rules(folder: Path, max_rank: int = MAX_RANKS[-1]) -> list[str]:
    """Say why vLLM would refuse an adapter, or compute something else than PEFT with it; nothing where it serves it."""
    return [*_of_config(read_object(folder / CONFIG) or {}, max_rank), *_of_weights(folder / WEIGHTS)]


def _of_config(config: Mapping[str, Any], max_rank: int) -> Iterator[str]:
    if missing := [name for name in _REQUIRED if not config.get(name)]:
        yield f"the configuration lacks {', '.join(missing)}"
        return
    if config.get("modules_to_save"):
        yield "modules_to_save must be empty"
    if config.get("use_dora"):
        yield "DoRA is not supported"
    if config.get("bias", "none") != "none":
        yield "biases are not supported"
    if config["r"] > max_rank:
        yield f"the rank {config['r']} is above max_lora_rank {max_rank}"
    for name in _NOT_READ:
        if config.get(name):
            yield f"{name} is not read, so that layers would be scaled wrongly or left out"


def _of_weights(path: Path) -> Iterator[str]:
    for name in read_header(path):
        if not _WEIGHT.fullmatch(name):
            yield f"{name} is not the weight of a LoRA"
        elif any(f".{module}." in name for module in _BESIDE):
            yield f"{name} belongs to an embedding or the head, which few models take"
