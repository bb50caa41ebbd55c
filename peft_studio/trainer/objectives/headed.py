"""What the objectives with a new head share: texts side by side, padded, and what the head makes of them."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from peft_studio.trainer.data import Batch, Group, Row, Tokenized, collate
from peft_studio.trainer.loss import autocast
from peft_studio.trainer.objectives.criterion import Criterion


class Headed(Criterion[Group]):
    """An objective on what a new head makes of whole texts, or of each of their tokens."""

    def begin(self, model: Any, items: Sequence[Group]) -> None:
        """Turn dropout off where it is not wanted; nothing is packed, since heads look for the end of a text."""
        self.still(model)

    @contextmanager
    def spread(self, model: Any, texts: Sequence[Row]) -> Generator[Batch]:
        """Lay out texts side by side."""
        yield collate(texts, model.device)

    def logits(self, model: Any, batch: Batch) -> torch.Tensor:
        """
        Return what the head says.

        Models that write take the last token of a text that is no padding: it is padded with a token that none of
        them ends with.
        """
        lengths = torch.tensor(batch.lengths, device=batch.ids.device)
        mask = torch.arange(batch.ids.shape[1], device=batch.ids.device) < lengths[:, None]
        last = set(batch.ids.gather(1, lengths[:, None] - 1).flatten().tolist())
        usual = self._base.tokenizer.pad_token_id
        pad = usual if usual is not None and usual not in last else min(set(range(len(last) + 1)) - last)
        settings = model.config.get_text_config()
        before, settings.pad_token_id = settings.pad_token_id, pad
        try:
            with autocast(model, batch):
                return model(input_ids=batch.ids.masked_fill(~mask, pad), attention_mask=mask.long()).logits.float()
        finally:
            settings.pad_token_id = before


def kept_tokens(whole: Tokenized, limit: int) -> NDArray[np.int64]:
    """Say which of a text's tokens are kept: the first ones, and the special ones that close it."""
    count = len(whole.ids)
    closing = 0
    if count > limit:
        texts = (n for n, (start, end) in enumerate(reversed(whole.offsets)) if end > start)
        closing = min(next(texts, 0), limit - 1)
    return np.concatenate([np.arange(min(count, limit) - closing), np.arange(count - closing, count)])
