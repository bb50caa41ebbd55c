"""From an adapter that took its first factors out of the base model (PiSSA, OLoRA) to one for the model as it was."""

import copy
import math
from typing import Any

import torch

Weights = dict[str, torch.Tensor]


def starting_factors(model: Any) -> Weights:
    """Copy the factors of a new adapter, before they are trained."""
    return {
        name: p.detach().clone() for name, p in model.named_parameters() if ".lora_A." in name or ".lora_B." in name
    }


def plain_weights(trained: Weights, start: Weights) -> Weights:
    """
    Say what training changed, as the weights of one adapter of twice the rank.

    The model in training is ``W - s·B0·A0 + s·B·A``, so the change is ``s·[B, -B0]·[A; A0]``.
    """
    plain = dict(trained)
    for name, first in start.items():
        stored = name.replace(".default.", ".")
        down = ".lora_A." in name
        first = first.to(trained[stored])
        plain[stored] = torch.cat([trained[stored], first if down else -first], dim=0 if down else 1).contiguous()
    return plain


def plain_config(config: Any) -> Any:
    """Double the ranks, with every layer's scaling kept."""
    plain = copy.deepcopy(config)
    gain = math.sqrt(2) if plain.use_rslora else 2
    plain.init_lora_weights = True
    plain.r *= 2
    plain.lora_alpha *= gain
    plain.rank_pattern = {name: 2 * rank for name, rank in (plain.rank_pattern or {}).items()}
    plain.alpha_pattern = {name: gain * alpha for name, alpha in (plain.alpha_pattern or {}).items()}
    return plain
