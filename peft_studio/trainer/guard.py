"""The guard: training that has gone wrong for good is ended, with the reason and what to do."""

import math
from typing import Any

from peft_studio.errors import Diverged
from peft_studio.trainer.checkpoint import Progress

PATIENCE = 10  # steps in a row that are worse than guessing
ADVICE = "Lower learning_rate, add warmup_steps or set precision to float32, and look for broken rows."


def require_finite(loss: float, gradient: float, step: int) -> None:
    """Refuse to take a step that would ruin the adapter."""
    for name, value in (("loss", loss), ("gradient", gradient)):
        if not math.isfinite(value):
            raise Diverged(f"The {name} became {value} at step {step}.", field="learning_rate", issue=ADVICE)


def require_sense(progress: Progress, model: Any) -> None:
    """
    End a training whose loss has run away, which no later step brings back.

    Run away is what for ten steps is twice as bad as guessing among all tokens, and as the first step was.
    """
    loss = progress.loss
    if progress.first_loss is None:
        progress.first_loss = loss
    guessing = math.log(max(2, model.config.get_text_config().vocab_size))
    limit = 2 * max(guessing, progress.first_loss)
    progress.senseless_steps = progress.senseless_steps + 1 if loss > limit else 0
    if progress.senseless_steps >= PATIENCE:
        raise Diverged(
            f"The loss ran away: above {limit:.1f} for {PATIENCE} steps, {loss:.1f} at step {progress.step}.",
            field="learning_rate",
            issue=ADVICE,
        )
