"""Kahneman-Tversky optimization (https://arxiv.org/abs/2402.01306): answers that are good or bad, each by itself."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from peft_studio.datasets import Example
from peft_studio.trainer.data import Batch, Encoded, Group, Row, batches
from peft_studio.trainer.evaluating import evaluating
from peft_studio.trainer.objectives.criterion import Tally
from peft_studio.trainer.objectives.preference import Preference, reference_of
from peft_studio.trainer.render import Renderer
from peft_studio.trainer.stop import StopSignal


class Kto(Preference):
    """
    Equation 8 of the paper: what a good answer gained and a bad one lost, against how far the model went altogether.

    How far, the KL term, is estimated from prompts with answers to other ones: each row's prompt with the answer of the
    row before it, over all rows of a step.
    """

    needs_reference = True
    read_together = ((0,), (1,))

    def encode(self, examples: Sequence[Example], renderer: Renderer, limit: int) -> Encoded[Group]:
        """Give every prompt its own answer and another one."""
        others = [examples[-1:], examples[:-1]]
        before = [example for some in others for example in some]
        return super().encode(
            [_with_other_answer(*pair) for pair in zip(examples, before, strict=True)], renderer, limit
        )

    def targets(self, example: Example, rows: Sequence[Row]) -> Sequence[float]:
        """Say whether the answer is a good one."""
        return (float(bool(example.label)),)

    def begin_step(
        self, model: Any, items: Sequence[Group], stop: StopSignal, step: int | None = None
    ) -> Sequence[Group]:
        """Estimate the KL term, without gradients."""
        gone: list[torch.Tensor] = []
        with evaluating(model):
            for some in batches(items, self._config.batch_size, by_length=True):
                stop.check()
                with self.spread(model, [group.texts[1] for group in some]) as batch:
                    gone.append(self.answers(model, batch) - reference_of(some, model.device)[:, 1])
        self._kl = torch.cat(gone).mean().clamp(min=0)
        return items

    def loss(
        self, model: Any, batch: Batch, items: Sequence[Group], step: Sequence[Group], tally: Tally
    ) -> torch.Tensor:
        """Return the losses of a batch's rows, as a share of the step's mean."""
        beta, desirable, undesirable = (
            self._config.objective_option(name) for name in ("beta", "desirable_weight", "undesirable_weight")
        )
        found = self.answers(model, batch)
        good = torch.tensor([bool(item.targets[0]) for item in items], device=found.device)
        gains = found - reference_of(items, found.device)[:, 0]
        losses = torch.where(
            good,
            desirable * (1 - torch.sigmoid(beta * (gains - self._kl))),
            undesirable * (1 - torch.sigmoid(beta * (self._kl - gains))),
        )
        rewards = (beta * gains).detach()
        for name, which in (("chosen", good), ("rejected", ~good)):
            tally.add(f"rewards/{name}", rewards[which])
            tally.add(f"logps/{name}", found[which])
        right = (torch.where(good, rewards, -rewards).sign() + 1) / 2
        tally.add("accuracy", right)
        tally.rows(losses, right)
        tally.add("kl", self._kl)
        return losses.sum() / len(step)

    @contextmanager
    def laid_out(self, model: Any, items: Sequence[Group]) -> Generator[Batch]:
        """Lay out the answers alone; the other ones have their turn at the beginning of the step."""
        with self.spread(model, [item.texts[0] for item in items]) as batch:
            yield batch

    def report(self, tally: Tally) -> dict[str, float]:
        """Add the margin, where there were good and bad answers."""
        means = super().report(tally)
        if "rewards/chosen" in means and "rewards/rejected" in means:
            means["rewards/margins"] = means["rewards/chosen"] - means["rewards/rejected"]
        return means


def _with_other_answer(example: Example, other: Example) -> Example:
    [own], [theirs] = example.answers, other.answers
    mixed = replace(
        own,
        completion=theirs.completion,
        messages=(*own.messages[: own.given], *theirs.messages[theirs.given :]),
    )
    return replace(example, answers=(own, mixed))
