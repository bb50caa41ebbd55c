"""Embeddings: texts that belong together lie closer than others (https://arxiv.org/abs/1705.00652)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize

from peft_studio.config import LongRows
from peft_studio.datasets import Example
from peft_studio.trainer.data import Batch, Encoded, Group, Row, batches, tokenize
from peft_studio.trainer.evaluating import evaluating
from peft_studio.trainer.loss import autocast
from peft_studio.trainer.objectives.criterion import Tally
from peft_studio.trainer.objectives.headed import Headed, kept_tokens
from peft_studio.trainer.render import Renderer
from peft_studio.trainer.stop import StopSignal

AT_ONCE = 1024  # anchors that are compared with everything at a time


class Embedding(Headed):
    """
    The mean over rows of the cross-entropy of finding the positive among the positives and negatives of all rows.

    Scores are cosines times ``scale``, as in sentence-transformers' MultipleNegativesRankingLoss. The rows that an
    anchor is compared with are all those of the step: their embeddings are made first, without gradients, and then,
    batch by batch, once more with the gradients that they have in the loss of the whole
    (https://arxiv.org/abs/2101.06983), so that the loss is the same however rows fall into batches.
    """

    @property
    def notes(self) -> dict[str, Any]:
        """Say how hidden states become an embedding."""
        return {"pooling.json": {"pooling": self._config.objective_option("pooling"), "normalize": True}}

    def encode(self, examples: Sequence[Example], renderer: Renderer, limit: int) -> Encoded[Group]:
        """Tokenize the texts of each row as they stand, with the special tokens that the tokenizer adds."""
        texts = tokenize((text for example in examples for text in example.texts), self._base, renderer)
        groups: list[Group] = []
        long = dropped = 0
        for example in examples:
            whole = [next(texts) for _ in example.texts]
            is_long = any(len(text.ids) > limit for text in whole)
            long += is_long
            if (is_long and self._config.long_rows is LongRows.DROP) or not all(text.ids for text in whole):
                dropped += 1
                continue
            ids = [np.array(text.ids, dtype=np.int64)[kept_tokens(text, limit)] for text in whole]
            rows = tuple(Row(some, np.zeros(len(some), dtype=np.bool_)) for some in ids)
            groups.append(Group(rows, np.empty(0)))
        return Encoded(groups, truncated=0 if self._config.long_rows is LongRows.DROP else long, dropped=dropped)

    def begin_step(
        self, model: Any, items: Sequence[Group], stop: StopSignal, step: int | None = None
    ) -> Sequence[Group]:
        """
        Compare all rows of the step; what each becomes is its own loss and the gradients of its embeddings.

        ``targets`` are the loss and whether the positive was the closest, ``reference`` the gradients, text by text.
        """
        found = self._embed_all(model, items, stop)
        leaf = torch.cat(found).requires_grad_(model.training)
        first = np.cumsum([0, *(len(item.texts) for item in items)])[:-1]
        anchors = torch.from_numpy(first).to(leaf.device)
        others = torch.ones(len(leaf), dtype=torch.bool, device=leaf.device).index_fill(0, anchors, False)
        right = (others.cumsum(0) - 1)[anchors + 1]  # the positive stands behind its anchor
        losses: list[torch.Tensor] = []
        hits: list[torch.Tensor] = []
        with torch.set_grad_enabled(leaf.requires_grad):
            for some, target in zip(anchors.split(AT_ONCE), right.split(AT_ONCE), strict=True):
                scores = self._config.objective_option("scale") * leaf[some] @ leaf[others].T
                losses.append(cross_entropy(scores, target, reduction="none"))
                hits.append(scores.argmax(-1) == target)
            loss = torch.cat(losses)
            slope = torch.autograd.grad(loss.mean(), leaf)[0] if leaf.requires_grad else torch.zeros_like(leaf)
        told = torch.stack([loss.detach(), torch.cat(hits).float()], 1).double().cpu().numpy()
        parts = np.split(slope.double().cpu().numpy(), first[1:])
        return [replace(item, targets=a, reference=b) for item, a, b in zip(items, told, parts, strict=True)]

    def _embed_all(self, model: Any, items: Sequence[Group], stop: StopSignal) -> list[torch.Tensor]:
        """Embed the texts of all items, dropout off and without gradients."""
        found: list[torch.Tensor] = []
        with evaluating(model):
            for some in batches(items, self._config.batch_size, by_length=False):
                stop.check()
                with self.laid_out(model, some) as batch:
                    found.append(self.embed(model, batch))
        return found

    def embed(self, model: Any, batch: Batch) -> torch.Tensor:
        """Return the embedding of each text: its hidden states, pooled and brought to length one."""
        lengths = torch.tensor(batch.lengths, device=batch.ids.device)[:, None]
        mask = torch.arange(batch.ids.shape[1], device=batch.ids.device) < lengths
        with autocast(model, batch):
            states = model(input_ids=batch.ids, attention_mask=mask.long()).last_hidden_state
        states = states.float()
        match self._config.objective_option("pooling"):
            case "last":
                pooled = states[torch.arange(len(states), device=states.device), lengths[:, 0] - 1]
            case "first":
                pooled = states[:, 0]
            case _:
                pooled = (states * mask[:, :, None]).sum(1) / lengths
        return normalize(pooled, dim=-1)

    def answer(self, model: Any, renderer: Renderer, prompt: str | Example, limit: int) -> None:
        """Answer nothing: an embedding is nothing to be read."""

    def loss(
        self, model: Any, batch: Batch, items: Sequence[Group], step: Sequence[Group], tally: Tally
    ) -> torch.Tensor:
        """Return what the step's loss has from a batch's rows, with the gradients that it has by their embeddings."""
        losses, right = torch.from_numpy(np.stack([item.targets for item in items])).unbind(1)
        share = losses.float().to(batch.ids.device).sum() / len(step)
        tally.add("accuracy", right)
        tally.rows(losses, right)
        if not torch.is_grad_enabled():
            return share
        slope = np.concatenate([item.reference for item in items if item.reference is not None])
        moved = (self.embed(model, batch) * torch.from_numpy(slope).float().to(batch.ids.device)).sum()
        return share + moved - moved.detach()
