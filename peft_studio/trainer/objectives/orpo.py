"""Odds ratio preference optimization (https://arxiv.org/abs/2403.07691): imitation and preference in one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import logsigmoid

from peft_studio.datasets import Example
from peft_studio.trainer.data import Batch, Encoded, Group, Row
from peft_studio.trainer.loss import row_of_each, token_log_probs
from peft_studio.trainer.objectives.criterion import Tally
from peft_studio.trainer.objectives.preference import Preference, summed, tally_pairs
from peft_studio.trainer.render import Renderer


class Orpo(Preference):
    """
    Equation 6 of the paper: the cross-entropy of the chosen text, and ``beta`` times that of the odds between answers.

    As in TRL, the first is that of prompt and chosen answer together, over the tokens of all pairs.
    """

    def encode(self, examples: Sequence[Example], renderer: Renderer, limit: int) -> Encoded[Group]:
        """Mark the whole of chosen texts; ``targets`` says which of their tokens belong to the answer."""
        encoded = super().encode(examples, renderer, limit)
        return replace(encoded, rows=[_whole(group) for group in encoded.rows])

    def loss(
        self, model: Any, batch: Batch, items: Sequence[Group], step: Sequence[Group], tally: Tally
    ) -> torch.Tensor:
        """Return both losses of a batch's pairs, each as a share of the step's mean."""
        tokens = token_log_probs(model, batch, self._chunk)
        answers = torch.from_numpy(_answers(items)).to(tokens)
        means = (summed(tokens * answers, batch) / summed(answers, batch)).view(-1, 2)
        chosen, rejected = means.unbind(1)
        imitation = -tokens[row_of_each(batch) % 2 == 0]
        beta = self._config.objective_option("beta")
        odds = (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))

        tally_pairs(tally, *(beta * means.detach()).unbind(1))
        told = {"logps/chosen": chosen, "logps/rejected": rejected, "nll_loss": imitation, "log_odds_chosen": odds}
        for name, values in told.items():
            tally.add(name, values)
        tally.add("log_odds_ratio", logsigmoid(odds))
        return imitation.sum() / sum(group.texts[0].supervised for group in step) - beta * logsigmoid(odds).sum() / len(
            step
        )


def _whole(group: Group) -> Group:
    chosen, rejected = group.texts
    whole = Row(chosen.ids, np.ones_like(chosen.learn))
    return Group((whole, rejected), chosen.learn.astype(np.float64))


def _answers(items: Sequence[Group]) -> Any:
    """Say of each token that carries loss, in the order of texts and tokens, whether it belongs to an answer."""
    return np.concatenate(
        [part for item in items for part in (item.targets[1:] > 0, np.ones(item.texts[1].supervised, dtype=np.bool_))]
    )


def _log1mexp(negative: torch.Tensor) -> torch.Tensor:
    """Return log(1 - exp(x)) without losing the small ones (https://cran.r-project.org/package=Rmpfr, log1mexp)."""
    small = negative > -0.6931472
    near = torch.log(-torch.expm1(torch.where(small, negative, -1.0)))
    far = torch.log1p(-torch.exp(torch.where(small, -1.0, negative)))
    return torch.where(small, near, far)
