"""The optimizer: which parameters it trains, and how fast each group of them."""

from typing import Any

import torch

from peft_studio.algorithms import Algorithm
from peft_studio.config import TrainingConfig


def make_optimizer(model: Any, config: TrainingConfig) -> torch.optim.Optimizer:
    """Make AdamW over all that is trained; a group's ``scale`` is its share of the schedule's learning rate."""
    groups = parameter_groups(model, config)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)


def parameter_groups(model: Any, config: TrainingConfig) -> list[dict[str, Any]]:
    """Divide what is trained into groups: all in one, but LoRA+ has its second factors learn faster."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if config.algorithm is not Algorithm.LORA_PLUS:
        return [{"params": [parameter for _, parameter in trained], "scale": 1.0}]
    # Biases and magnitudes go with the second factors, as in PEFT's own.
    fast = {name for name, parameter in trained if "lora_B" in name or parameter.ndim == 1}
    return [
        {"params": [parameter for name, parameter in trained if name not in fast], "scale": 1.0},
        {"params": [parameter for name, parameter in trained if name in fast], "scale": config.option("lr_ratio")},
    ]


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
