"""
Results of norms that are made again for the backward pass, on a processor, in place of being kept for it.

Adapters need what a norm has given, and so do MLPs that keep a part of their tokens. Its input, the residual stream, is
kept by the norm itself: from it the result comes again to the bit, by a pass or two over it and no product.
"""

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks


@dataclass(frozen=True)
class _Result:
    """What a norm gave for an input, as long as somebody else holds it, and how often it had been changed by then."""

    tensor: weakref.ref[torch.Tensor]
    version: int
    norm: nn.Module
    of: torch.Tensor

    def holds(self, saved: torch.Tensor) -> bool:
        """Whether a tensor that lies where this result did lies in it still, and nobody has changed it since."""
        result = self.tensor()
        return result is not None and result.dtype is saved.dtype and result._version == self.version


@dataclass(frozen=True)
class _Part:
    """What is kept in place of a tensor: of which norm's result for which input it is a part, and which."""

    norm: nn.Module
    of: torch.Tensor
    shape: torch.Size
    strides: tuple[int, ...]
    start: int

    def made_again(self) -> torch.Tensor:
        with torch.no_grad():  # autocast leaves norms as they are
            return self.norm.forward(self.of).as_strided(self.shape, self.strides, self.start)


class _Norms:
    """What a model's norms have given in the forward pass that is going on, by where it lies in memory."""

    def __init__(self) -> None:
        self._results: dict[int, _Result] = {}
        self._open: list[saved_tensors_hooks] = []

    def begin(self, *_: Any) -> None:
        """Have what autograd keeps from here on pass through this object."""
        self._open.append(saved_tensors_hooks(self._pack, _unpack))
        self._open[-1].__enter__()

    def end(self, *_: Any) -> None:
        """Undo the last ``begin``."""
        self._open.pop().__exit__()
        self._results.clear()

    def gave(self, norm: nn.Module, inputs: tuple[Any, ...], more: dict[str, Any], result: Any) -> None:
        """Remember what a norm has given, if it keeps its input: where a gradient goes back through it."""
        if len(inputs) != 1 or more or not self._open:  # a copy of the norm, made for an adapter, is in no pass
            return
        [of] = inputs
        if type(of) is type(result) is torch.Tensor and of.requires_grad:
            place = result.untyped_storage().data_ptr()
            self._results[place] = _Result(weakref.ref(result), result._version, norm, of.detach())

    def _pack(self, saved: torch.Tensor) -> torch.Tensor | _Part:
        if type(saved) is not torch.Tensor or saved.layout is not torch.strided:
            return saved
        found = self._results.get(saved.untyped_storage().data_ptr())
        if found is None or not found.holds(saved):
            return saved
        return _Part(found.norm, found.of, saved.shape, saved.stride(), int(saved.storage_offset()))


def remake_norms(model: nn.Module) -> None:
    """Have a model in training keep the inputs of its norms alone, where both would be kept."""
    norms = _Norms()
    for module in model.modules():
        if _is_norm(module):
            module.register_forward_hook(norms.gave, with_kwargs=True)
    model.register_forward_pre_hook(norms.begin)
    model.register_forward_hook(norms.end, always_call=True)


def _unpack(kept: torch.Tensor | _Part) -> torch.Tensor:
    return kept.made_again() if isinstance(kept, _Part) else kept


def _is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm of tokens, each by itself, that remembers nothing."""
    remembers = any(True for _ in module.children()) or any(True for _ in module.buffers())
    return type(module).__name__.endswith(("RMSNorm", "LayerNorm")) and not remembers
