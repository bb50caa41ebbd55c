"""AdaLoRA beside the training loop: its penalty, and the ranks that it takes away as training goes on."""

from typing import Any

import torch
from torch import nn


class RankAllocation:
    """
    PEFT's allocation of ranks for one model, as something that can be saved and put back.

    Training adds ``penalty`` to the loss once a step, and calls ``allocate`` while the gradients are still there.
    """

    def __init__(self, model: Any):
        self._tuner = model.base_model
        self._config = model.peft_config["default"]
        self._factors = [
            (parameter, "lora_A" in name)
            for name, parameter in model.named_parameters()
            if "lora_A" in name or "lora_B" in name
        ]

    def penalty(self) -> torch.Tensor:
        """How far the factors are from orthogonal, weighted as PEFT's own forward pass does."""
        total = torch.zeros((), device=self._factors[0][0].device)
        for factor, across in self._factors:
            square = factor @ factor.T if across else factor.T @ factor
            total = total + torch.linalg.norm(square - torch.eye(len(square), device=square.device))
        return self._config.orth_reg_weight * total / len(self._factors)

    def allocate(self, step: int) -> None:
        """Weigh the ranks with this step's gradients, and take away what the budget no longer allows."""
        self._tuner.update_and_allocate(step)

    def state_dict(self) -> dict[str, Any]:
        """What the next steps' allocation depends on."""
        ranks = self._tuner.rankallocator
        return {
            "pattern": self._config.rank_pattern,
            **{name: getattr(ranks, name) for name in ("ipt", "exp_avg_ipt", "exp_avg_unc")},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what ``state_dict`` gave."""
        ranks = self._tuner.rankallocator
        self._config.rank_pattern = state["pattern"]
        for name in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
            setattr(ranks, name, {key: nn.Parameter(value, False).data for key, value in state[name].items()})
