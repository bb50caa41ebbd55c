"""Direct preference optimization (https://arxiv.org/abs/2305.18290): likelier than before, by as much as possible."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from peft_studio.trainer.data import Batch, Group
from peft_studio.trainer.objectives.criterion import Tally
from peft_studio.trainer.objectives.preference import Preference, reference_of, tally_pairs


class Dpo(Preference):
    """
    The mean over pairs of how little the chosen answer gained on the rejected one, against the base model.

    ``loss_type`` is TRL's of the same name: ``sigmoid`` (equation 7 of the paper), ``hinge``
    (https://arxiv.org/abs/2305.10425), ``ipo`` (equation 17 of https://arxiv.org/abs/2310.12036, by token as in TRL)
    and ``robust`` (https://arxiv.org/abs/2403.00409), which takes a share ``label_smoothing`` of pairs for swapped.
    """

    needs_reference = True

    def loss(
        self, model: Any, batch: Batch, items: Sequence[Group], step: Sequence[Group], tally: Tally
    ) -> torch.Tensor:
        """Return the losses of a batch's pairs, as a share of the step's mean."""
        found = self.answers(model, batch).view(-1, 2)
        gains = found - reference_of(items, found.device)
        beta = self._config.objective_option("beta")
        losses = self._losses(gains, items)
        tally_pairs(tally, *(beta * gains.detach()).unbind(1), losses=losses)
        for name, column in zip(("logps/chosen", "logps/rejected"), found.unbind(1), strict=True):
            tally.add(name, column)
        return losses.sum() / len(step)

    def _losses(self, gains: torch.Tensor, items: Sequence[Group]) -> torch.Tensor:
        beta, smoothing = (self._config.objective_option(name) for name in ("beta", "label_smoothing"))
        chosen, rejected = gains.unbind(1)
        match self._config.objective_option("loss_type"):
            case "hinge":
                return torch.relu(1 - beta * (chosen - rejected))
            case "ipo":
                lengths = gains.new_tensor([[text.learn.sum() for text in item.texts] for item in items])
                chosen, rejected = (gains / lengths).unbind(1)
                return (chosen - rejected - 1 / (2 * beta)) ** 2
            case "robust":
                right, swapped = logsigmoid(beta * (chosen - rejected)), logsigmoid(beta * (rejected - chosen))
                return (smoothing * swapped - (1 - smoothing) * right) / (1 - 2 * smoothing)
            case _:
                return -logsigmoid(beta * (chosen - rejected))
