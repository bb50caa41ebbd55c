"""Reward models: a number for an answer, the higher for the better of two (https://arxiv.org/abs/2203.02155)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from peft_studio.config import TrainingConfig
from peft_studio.datasets import Example
from peft_studio.row_formats import RowFormat
from peft_studio.trainer.data import Batch, Encoded, Group, Row, collate, encode_groups, tokenize
from peft_studio.trainer.evaluating import evaluating
from peft_studio.trainer.model import Base
from peft_studio.trainer.objectives.criterion import Tally
from peft_studio.trainer.objectives.headed import Headed
from peft_studio.trainer.render import Renderer


class Reward(Headed):
    """
    Equation 1 of the paper: the mean over pairs of ``-log sigmoid(chosen - rejected)``.

    ``center_rewards_coefficient`` weighs how far a pair's rewards are from 0 together
    (https://arxiv.org/abs/2312.09244), as in TRL.
    """

    def __init__(self, config: TrainingConfig, base: Base):
        super().__init__(config, base)
        base.config.num_labels = 1

    def encode(self, examples: Sequence[Example], renderer: Renderer, limit: int) -> Encoded[Group]:
        """Lay out prompt and answer, both answers of each row."""
        return encode_groups(examples, self._base, renderer, limit, self._config.long_rows, _nothing)

    def loss(
        self, model: Any, batch: Batch, items: Sequence[Group], step: Sequence[Group], tally: Tally
    ) -> torch.Tensor:
        """Return the losses of a batch's pairs, as a share of the step's mean."""
        rewards = self.logits(model, batch).view(-1, 2)
        chosen, rejected = rewards.unbind(1)
        tally.add("mean_reward", rewards)
        tally.add("margin", chosen - rejected)
        centre = self._config.objective_option("center_rewards_coefficient") * (chosen + rejected) ** 2
        losses, right = centre - logsigmoid(chosen - rejected), ((chosen - rejected).sign() + 1) / 2
        tally.add("accuracy", right)
        tally.rows(losses, right)
        return losses.sum() / len(step)

    def answer(self, model: Any, renderer: Renderer, prompt: str | Example, limit: int) -> tuple[str, str]:
        """Give the reward of a text as it stands, or of a row's chosen answer."""
        example = Example(0, RowFormat.TEXT, text=prompt) if isinstance(prompt, str) else prompt.texts[0]
        [whole] = tokenize([example], self._base, Renderer(self._base.tokenizer, example.format))
        with evaluating(model):
            reward = self.logits(model, collate([whole.cut(limit)], model.device)).item()
        return whole.rendered.text, f"{reward:.4f}"


def _nothing(_: Example, __: Sequence[Row]) -> Sequence[float]:
    return ()
