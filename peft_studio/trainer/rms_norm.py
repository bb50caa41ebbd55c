"""
RMS norms that are not trained, as Llama's kin have them, on a processor: in fewer passes over what they are given.

The numbers are those of stock code up to rounding. In 16 bits that keeps a copy of the input in 32, and this does not.
"""

from typing import Any

import torch

from peft_studio.trainer.evaluating import evaluating
from peft_studio.trainer.replacing import replace

# How far results may be apart to be the same but for rounding: relatively, and by themselves.
TOLERANCE = {torch.float32: (1e-5, 1e-6)}
COARSE = (2e-2, 1e-3)  # formats that round more


class _FrozenRMSNorm(torch.autograd.Function):
    """``weight * x / sqrt(mean(x²) + epsilon)`` of hidden states (..., width), by a weight without a gradient."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float
    ) -> torch.Tensor:
        wide = x.float()
        squares = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
        scale = squares.div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, scale, weight)
        return (wide * scale).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, scale, weight = ctx.saved_tensors
        wide, gradient = x.float(), (gradients[0] * weight).float()
        along = (gradient * wide).sum(-1, keepdim=True)
        along.mul_(scale.square()).div_(-x.shape[-1])
        return gradient.addcmul_(wide, along).mul_(scale).to(x.dtype), None, None


def fuse_norms(model: Any) -> int:
    """Have a model's RMS norms take fewer passes where it changes nothing but rounding; return how many do."""
    return replace(model, _is_rms_norm, _gives_the_same, _forward)


def _forward(self: Any, *inputs: Any, **named: Any) -> torch.Tensor:
    if len(inputs) == 1 and not named and _is_frozen(inputs[0], self.weight):
        result: torch.Tensor = _FrozenRMSNorm.apply(inputs[0], self.weight, _epsilon(self))  # pyright: ignore[reportAssignmentType]
        return result
    return type(self).forward(self, *inputs, **named)


def _is_frozen(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether a norm with this weight is not trained, and all is of one format, on a processor."""
    return x.device.type == weight.device.type == "cpu" and x.dtype is weight.dtype and not weight.requires_grad


def _is_rms_norm(module: Any) -> bool:
    """Whether a module has what an RMS norm of tokens has, and nothing else."""
    parts = [*module.named_parameters(), *module.named_buffers(), *module.named_children()]
    return (
        type(module).__name__.endswith("RMSNorm")
        and [name for name, _ in parts] == ["weight"]
        and module.weight.dim() == 1
        and isinstance(_epsilon(module), float)
    )


def _epsilon(module: Any) -> float | None:
    return getattr(module, "variance_epsilon", getattr(module, "eps", None))


def _gives_the_same(module: Any) -> bool:
    """Compare with stock code on one token: some classes add one to their weights, and others do what is not known."""
    weight = module.weight.detach()
    token = torch.linspace(-1, 2, len(weight), device=weight.device, dtype=weight.dtype)[None, None]
    relative, absolute = TOLERANCE.get(weight.dtype, COARSE)
    try:
        with evaluating(module):
            stock = module(token)
    except Exception:  # whatever a class asks for beside its one input, it is another kind of norm
        return False
    ours = _FrozenRMSNorm.apply(token, weight, _epsilon(module))
    return torch.allclose(ours, stock, rtol=relative, atol=absolute)  # pyright: ignore[reportArgumentType]
