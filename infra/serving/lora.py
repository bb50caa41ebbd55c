"""
Many LoRA adapters on one base model, each row of a batch with its own, in the same two matrix products a layer.

All adapters' matrices lie one behind the other along the rank: a layer multiplies by all of them at once, and a
mask takes out, row by row, what belongs to another adapter. PEFT's own mixed batches (``adapter_names``) loop over
the adapters in every layer, several times slower in small batches, and refuse DoRA.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

_FIRST_RANKS = 64
_FIRST_GAINS = 4


@dataclass(frozen=True)
class LayerWeights:
    """What an adapter does to one layer: ``y = (Wx + up'·down·x) · gain + bias``, PEFT's scaling being in ``up``."""

    down: Tensor  # rank, inputs
    up: Tensor  # rank, outputs
    gain: Tensor | None = None  # outputs; DoRA alone has one


@dataclass(frozen=True, eq=False)
class Slot:
    """Where a loaded adapter lies: its ranks, and the line of its gains (0: it has none)."""

    start: int
    rank: int
    gain: int = 0

    @property
    def end(self) -> int:
        """The first rank that is no longer this adapter's."""
        return self.start + self.rank


@dataclass(frozen=True)
class _Route:
    """Which adapter each row of the current batch goes through."""

    start: int
    end: int
    mask: Tensor | None  # rows, ranks; None where all rows share one adapter
    gains: Tensor | None  # the number of a line for each row, or of one for all
    tokens: int  # in each row


class AdaptedLayers:
    """A model's layers, adapted by forward hooks; the model itself is left as it is."""

    def __init__(self, model: nn.Module):
        self._modules = dict(model.named_modules())
        self._device = next(model.parameters()).device
        self._layers: dict[str, _Layer] = {}
        self._slots: list[Slot] = []
        self._ranks = _FIRST_RANKS
        self._gains = _FIRST_GAINS
        self._route: _Route | None = None
        self._routed: tuple[tuple[Slot | None, ...], int] | None = None

    def attach(self, weights: Mapping[str, LayerWeights]) -> Slot:
        """Put an adapter on the layers that it names; its shapes must be right."""
        slot = self._place(max(len(part.down) for part in weights.values()), weights)
        for name in weights:
            if name not in self._layers:
                self._layers[name] = _Layer(self._modules[name], self._ranks, self._device)
                self._modules[name].register_forward_hook(self._hook(self._layers[name]))
        for name, layer in self._layers.items():
            layer.reserve(self._ranks, self._gains)
            layer.write(slot, weights.get(name))
        self._slots.append(slot)
        return slot

    def detach(self, slot: Slot) -> None:
        """Take an adapter off; its place is given to the next."""
        self._slots.remove(slot)

    def holds(self, slot: Slot) -> bool:
        """Whether an adapter is still on."""
        return slot in self._slots

    def route(self, rows: Sequence[Slot | None], tokens: int) -> None:
        """Say which adapter each row of the next batch, of so many tokens, goes through; None is the base model."""
        if self._routed == (asked := (tuple(rows), tokens)):
            return  # step after step of one batch goes the same way
        self._routed = asked
        used = {row for row in rows if row is not None}
        if not used:
            self._route = None
            return
        start, end = min(slot.start for slot in used), max(slot.end for slot in used)
        mask = None
        if len(used) > 1 or None in rows:
            mask = torch.zeros(len(rows), end - start)
            for number, slot in enumerate(rows):
                if slot is not None:
                    mask[number, slot.start - start : slot.end - start] = 1
            mask = mask.to(self._device)
        gains = None
        if any(slot.gain for slot in used):
            lines = rows if mask is not None else rows[:1]
            gains = torch.tensor([slot.gain if slot else 0 for slot in lines], device=self._device)
        self._route = _Route(start, end, mask, gains, tokens)

    def _hook(self, layer: "_Layer") -> Any:
        def adapt(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output if self._route is None else layer.adapt(inputs[0], output, self._route)

        return adapt

    def _place(self, rank: int, weights: Mapping[str, LayerWeights]) -> Slot:
        """Find a gap among the adapters that are there, or make room behind them."""
        start = 0
        for slot in sorted(self._slots, key=lambda slot: slot.start):
            if slot.start - start >= rank:
                break
            start = slot.end
        while self._ranks < start + rank:
            self._ranks *= 2
        gain = 0
        if any(part.gain is not None for part in weights.values()):
            taken = {slot.gain for slot in self._slots}
            gain = next(line for line in range(1, len(taken) + 2) if line not in taken)
            while self._gains <= gain:
                self._gains *= 2
        return Slot(start, rank, gain)


class _Layer:
    """One layer's share of all adapters."""

    def __init__(self, module: nn.Module, ranks: int, device: torch.device):
        self._bias: Tensor | None = getattr(module, "bias", None)
        inputs, outputs = sizes(module)
        self._down = torch.zeros(ranks, inputs, device=device)
        self._up = torch.zeros(ranks, outputs, device=device)
        self._gains: Tensor | None = None

    def reserve(self, ranks: int, gains: int) -> None:
        """Make room for so many ranks and lines of gains."""
        self._down = _grown(self._down, ranks, 0)
        self._up = _grown(self._up, ranks, 0)
        if self._gains is not None:
            self._gains = _grown(self._gains, gains, 1)

    def write(self, slot: Slot, part: LayerWeights | None) -> None:
        """Put an adapter's part in its place; an adapter without one leaves the layer as it is."""
        self._down[slot.start : slot.end] = 0
        self._up[slot.start : slot.end] = 0
        if self._gains is not None and slot.gain:
            self._gains[slot.gain] = 1
        if part is None:
            return
        self._down[slot.start : slot.start + len(part.down)] = part.down
        self._up[slot.start : slot.start + len(part.up)] = part.up
        if part.gain is not None:
            if self._gains is None:
                self._gains = torch.ones(max(_FIRST_GAINS, slot.gain + 1), len(part.gain), device=self._up.device)
            self._gains[slot.gain] = part.gain

    def adapt(self, inputs: Tensor, output: Tensor, route: _Route) -> Tensor:
        """Return the layer's output as the routed adapters change it."""
        hidden = linear(inputs.to(self._down.dtype), self._down[route.start : route.end])
        if route.mask is not None:
            hidden = hidden * _by_row(route.mask, hidden, route)
        delta = hidden @ self._up[route.start : route.end]
        if route.gains is None or self._gains is None:
            return (output + delta).to(output.dtype)
        gains = _by_row(self._gains[route.gains], output, route)
        if self._bias is None:
            return ((output + delta) * gains).to(output.dtype)
        return ((output - self._bias + delta) * gains + self._bias).to(output.dtype)


def _by_row(lines: Tensor, tokens: Tensor, route: _Route) -> Tensor:
    """Bring one line for each row into a shape that goes with tokens, in rows or, as some layers take them, without."""
    if len(lines) == 1:
        return lines
    if tokens.dim() > 2 and len(tokens) == len(lines):
        return lines.view(len(lines), *[1] * (tokens.dim() - 2), -1)
    if tokens.dim() == 2 and len(tokens) == len(lines) * route.tokens:
        return lines.repeat_interleave(route.tokens, 0)
    raise ValueError(f"The tokens of {len(lines)} rows cannot be told apart in the shape {tuple(tokens.shape)}.")


def sizes(module: nn.Module) -> tuple[int, int]:
    """Return a linear layer's number of inputs and outputs; raises ``TypeError`` for any other layer."""
    weight = linear_weight(module)
    return weight.shape[1], weight.shape[0]


def linear_weight(module: nn.Module) -> Tensor:
    """Return a linear layer's weight, outputs by inputs; raises ``TypeError`` for any other layer."""
    if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
        return module.weight
    if type(module).__name__ == "Conv1D":  # transformers' own: a linear layer with its weight transposed
        weight: Any = module.weight
        return weight.T
    raise TypeError(f"{type(module).__name__} is not a linear layer")


def _grown(tensor: Tensor, length: int, fill: float) -> Tensor:
    if len(tensor) >= length:
        return tensor
    grown = tensor.new_full((length, *tensor.shape[1:]), fill)
    grown[: len(tensor)] = tensor
    return grown
