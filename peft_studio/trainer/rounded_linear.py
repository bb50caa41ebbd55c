"""
Frozen linear layers whose weights torchao holds rounded, for training: what is widened for a product is not kept.

torchao's own layers widen their weights and leave what autograd then keeps for the backward pass to itself: a wide copy
of every layer's weights, which is more memory than not to round them at all.
"""

from typing import Any

import torch
from torch import nn


class RoundedLinear(nn.Linear):
    """A linear layer that computes in the number format of what it is given, from weights that stay rounded."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Widen the weights, multiply, and forget them; the backward pass widens them again."""
        kind = input.device.type
        if torch.is_autocast_enabled(kind):
            input = input.to(torch.get_autocast_dtype(kind))
        product: torch.Tensor = _Product.apply(input, self.weight, self.bias)  # pyright: ignore[reportAssignmentType]
        return product


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, rows: torch.Tensor, weight: Any, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.weight = weight  # frozen, and held by the layer anyway
        return nn.functional.linear(rows, _wide(weight, rows), None if bias is None else bias.to(rows.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return gradients[0] @ _wide(ctx.weight, gradients[0]), None, None


def keep_only_rounded(model: nn.Module) -> None:
    """Have every linear layer with weights of torchao's compute like this, a model's or the one that is given."""
    for module in model.modules():
        if type(module) is nn.Linear and type(module.weight).__module__.startswith("torchao."):
            module.__class__ = RoundedLinear


def _wide(weight: Any, like: torch.Tensor) -> torch.Tensor:
    return weight.dequantize().to(like.dtype)
