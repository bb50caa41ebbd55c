"""
LoRA and DoRA put into a model's linear layers, one block of rows after the other, with sums in 32 bits.

PEFT does the same in the number format of the weights, which for 16 bits on a processor takes a hundred times as long.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file
from torch import Tensor, nn

from peft_studio.adapter_config import CONFIG, unserved
from peft_studio.adapter_files import PARTS, PREFIX, WEIGHTS
from peft_studio.exporter.blocks import one_thread_each, rows_at_once


@dataclass(frozen=True)
class _Layer:
    """``W + up @ down``, and with ``magnitude`` each of its rows brought to that length (DoRA)."""

    name: str
    down: Tensor  # rank, inputs
    up: Tensor  # outputs, rank; the scaling is in it
    magnitude: Tensor | None  # outputs

    @torch.no_grad()
    def added_to(self, weight: Tensor) -> Tensor:
        """Return the sum with a weight, in its number format; raises ``ValueError`` where numbers are none there."""
        merged = torch.empty_like(weight)
        ends: list[Tensor] = []
        rows = rows_at_once(weight)
        for begin in range(0, len(weight), rows):
            some = slice(begin, begin + rows)
            block = weight[some].to(torch.float32, copy=True).addmm_(self.up[some], self.down)
            if self.magnitude is not None:
                block *= (self.magnitude[some] / torch.linalg.norm(block, dim=1))[:, None]
            ends.extend(torch.aminmax(block))
            merged[some].copy_(block)
        if not (torch.stack(ends).abs() <= torch.finfo(merged.dtype).max).all():
            raise ValueError(f"NaNs or infinities come out for the layer {self.name}")
        return merged


def merge_plainly(model: nn.Module, adapter: Path) -> bool:
    """
    Put an adapter into a model, and tell whether that was done: False, and nothing changed, where it takes PEFT.

    Raises ``ValueError`` where numbers come out that are none.
    """
    modules = dict(model.named_modules())
    layers = _read(adapter)
    if not layers or not all(_fits(modules.get(layer.name), layer) for layer in layers):
        return False
    weights: list[Any] = [modules[layer.name].weight for layer in layers]
    with one_thread_each() as pool:
        for weight, merged in zip(weights, pool.map(_Layer.added_to, layers, weights), strict=True):
            weight.data = merged
    return True


def _fits(module: nn.Module | None, layer: _Layer) -> bool:
    """Whether a module is an ordinary linear layer of this size."""
    if type(module) is not nn.Linear or module.weight.shape != (len(layer.up), layer.down.shape[1]):
        return False
    return not module.weight.is_meta


def _read(folder: Path) -> list[_Layer]:
    """Read an adapter's layers; none where there is more to it than LoRA or DoRA."""
    config: dict[str, Any] = json.loads((folder / CONFIG).read_bytes())
    if unserved(config) or config.get("fan_in_fan_out"):
        return []
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_file(folder / WEIGHTS).items():
        name, _, part = key.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
        if part not in PARTS or not key.startswith(PREFIX) or name.endswith("lm_head"):  # which may share its weight
            return []
        parts.setdefault(name, {})[part] = tensor.float()
    if not all({"lora_A", "lora_B"} <= found.keys() for found in parts.values()):
        return []
    return [_layer(name, found, config) for name, found in parts.items()]


def _layer(name: str, parts: Mapping[str, Tensor], config: Mapping[str, Any]) -> _Layer:
    patterns: dict[str, Any] = config.get("alpha_pattern") or {}
    alpha = patterns.get(get_pattern_key(list(patterns), name), config["lora_alpha"])
    down = parts["lora_A"]
    scaling = alpha / (math.sqrt(len(down)) if config.get("use_rslora") else len(down))
    magnitude = parts.get("lora_magnitude_vector")
    return _Layer(name, down, parts["lora_B"] * scaling, None if magnitude is None else magnitude.flatten())
