"""Simple preference optimization (https://arxiv.org/abs/2405.14734): likelier by token, with a margin to spare."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from peft_studio.trainer.data import Batch, Group
from peft_studio.trainer.loss import row_of_each, token_log_probs
from peft_studio.trainer.objectives.criterion import Tally
from peft_studio.trainer.objectives.preference import Preference, summed, tally_pairs


class Simpo(Preference):
    """
    Equation 6 of the paper, without a reference: the mean over pairs of log-probabilities by token.

    As in TRL's CPO trainer, ``simpo_gamma`` is the margin of rewards, ``label_smoothing`` the share of pairs that are
    taken for swapped, and ``cpo_alpha`` weighs the cross-entropy of chosen answers that is added (0 in the paper).
    """

    def loss(
        self, model: Any, batch: Batch, items: Sequence[Group], step: Sequence[Group], tally: Tally
    ) -> torch.Tensor:
        """Return the losses of a batch's pairs, as a share of the step's mean."""
        beta, gamma, alpha, smoothing = (
            self._config.objective_option(name) for name in ("beta", "simpo_gamma", "cpo_alpha", "label_smoothing")
        )
        tokens = token_log_probs(model, batch, self._chunk)
        means = (summed(tokens, batch) / summed(torch.ones_like(tokens), batch)).view(-1, 2)
        chosen, rejected = means.unbind(1)
        margin = beta * (chosen - rejected) - gamma
        losses = -logsigmoid(margin) * (1 - smoothing) - logsigmoid(-margin) * smoothing
        imitation = -tokens[row_of_each(batch) % 2 == 0]

        tally_pairs(tally, *(beta * means.detach()).unbind(1), losses=None if alpha else losses)
        for name, values in {"logps/chosen": chosen, "logps/rejected": rejected, "nll_loss": imitation}.items():
            tally.add(name, values)
        loss = losses.sum() / len(step)
        return loss + alpha * imitation.sum() / sum(group.texts[0].supervised for group in step) if alpha else loss
