"""Generations that go through the model together: their keys and values lie in one cache, padded on the left."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from infra.serving.generation import Generation
from infra.serving.lora import AdaptedLayers


class Batch:
    """
    Some generations, first while their prompts are read (``prefill``), then token by token (``step``).

    A row's padding is masked and its positions start behind it, so a row's answer does not depend on the others.
    """

    def __init__(self, model: Any, layers: AdaptedLayers, rows: Sequence[Generation]):
        self.rows = list(rows)
        self._model = model
        self._layers = layers
        self._device = model.device
        self._cache = DynamicCache()
        self._length = 0  # of the cache, padding included
        longest = max(len(row.prompt) for row in rows)
        self._padding = [longest - len(row.prompt) for row in rows]
        self._unread = torch.tensor(
            [[0] * padding + list(row.prompt) for padding, row in zip(self._padding, rows, strict=True)],
            device=self._device,
        )

    @property
    def is_prefilled(self) -> bool:
        """Whether all prompts are read."""
        return self._unread.shape[1] == 0

    def prefill(self, most: int) -> Tensor | None:
        """Read on in the prompts, about ``most`` tokens of all together; return the last logits at their end."""
        width = max(1, most // len(self.rows))
        tokens, self._unread = self._unread[:, :width], self._unread[:, width:]
        logits = self._forward(tokens)
        return logits if self.is_prefilled else None

    def step(self) -> Tensor:
        """Go on by each row's last token; return the logits for its next."""
        return self._forward(torch.tensor([[row.generated[-1]] for row in self.rows], device=self._device))

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only; padding that all of them share is cut off."""
        self.rows = [self.rows[row] for row in rows]
        self._padding = [self._padding[row] for row in rows]
        shared = min(self._padding, default=0) if self.is_prefilled else 0
        self._padding = [padding - shared for padding in self._padding]
        self._unread = self._unread[list(rows)]
        self._length -= shared
        index = torch.tensor(rows, device=self._device, dtype=torch.long)
        for layer in self._filled():
            layer.keys = layer.keys.index_select(0, index)[:, :, shared:]
            layer.values = layer.values.index_select(0, index)[:, :, shared:]

    def merge(self, other: "Batch") -> None:
        """Take another batch's rows in; both have read their prompts."""
        length = max(self._length, other._length)
        for mine, theirs in zip(self._filled(), other._filled(), strict=True):
            for name in ("keys", "values"):
                both = [
                    pad(getattr(layer, name), (0, 0, length - batch._length, 0))
                    for layer, batch in ((mine, self), (theirs, other))
                ]
                setattr(mine, name, torch.cat(both))
        self._padding = [padding + length - batch._length for batch in (self, other) for padding in batch._padding]
        self.rows += other.rows
        self._length = length
        self._unread = self._unread.new_zeros(len(self.rows), 0)

    def _filled(self) -> list[Any]:
        """The cache's layers; models that share some layers' keys leave others empty."""
        layers: Any = self._cache.layers
        return [layer for layer in layers if layer.is_initialized]

    @torch.inference_mode()
    def _forward(self, tokens: Tensor) -> Tensor:
        end = self._length + tokens.shape[1]
        padding = torch.tensor(self._padding, device=self._device).unsqueeze(1)
        places = torch.arange(end, device=self._device).unsqueeze(0)
        self._layers.route([row.slot for row in self.rows], tokens.shape[1])
        output = self._model(
            input_ids=tokens,
            attention_mask=(places >= padding).long() if any(self._padding) else None,
            position_ids=(places[:, self._length :] - padding).clamp(min=0),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._length = end
        return output.logits[:, -1]
