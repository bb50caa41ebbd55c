"""
Whether training that was taken up again really goes on: its first losses against the last ones before.

Steps that are trained twice, because they came after the checkpoint, see the same rows with the same weights: their
losses must agree up to what another GPU rounds differently. Where no step comes twice, the mean of the first few must
not be out of the range of those before.
"""

from statistics import mean, pstdev

from peft_studio.errors import ResumeMismatch
from peft_studio.events import Event, Metrics

SAME = 0.05  # of the loss: another kind of GPU, other kernels, bfloat16
LEAST = 0.05  # nats, below which two losses are not told apart
STEPS = 8
SPREADS = 6.0
_REMEMBERED = 10_000  # steps; no attempt goes further back


class Continuity:
    """Watches an attempt's losses as they are reported, knowing those of the attempts before it."""

    def __init__(self) -> None:
        self._before: dict[int, float] = {}
        self._new: list[float] = []

    def knows(self, event: Event) -> None:
        """Take note of what an earlier attempt has reported."""
        if (loss := _loss_of(event)) is not None:
            step, value = loss
            self._before[step] = value
            self._before.pop(step - _REMEMBERED, None)

    def saw(self, event: Event) -> None:
        """Take note of what this attempt reports; raises ``ResumeMismatch`` where it does not follow."""
        if (loss := _loss_of(event)) is None or not self._before:
            return
        step, value = loss
        if (before := self._before.get(step)) is not None:
            if not abs(value - before) <= max(SAME * abs(before), LEAST):  # one that is no number differs
                raise ResumeMismatch(
                    f"Step {step} had the loss {before:.4f} and has {value:.4f} now that it is trained again.",
                    issue="The checkpoint, the model or the data are not what they were; see the job's log.",
                )
        elif len(self._new) < STEPS:
            self._new.append(value)
            self._compare(step)

    def _compare(self, step: int) -> None:
        last = [self._before[known] for known in sorted(self._before)[-STEPS:]]
        if len(last) < STEPS or len(self._new) < STEPS:
            return
        usual, found = mean(last), mean(self._new)
        if found > usual + SPREADS * max(pstdev(last), SAME * abs(usual), LEAST):
            raise ResumeMismatch(
                f"The losses up to step {step} are {found:.4f} on average, after {usual:.4f} before the interruption.",
                issue="Training did not go on from the checkpoint; see the job's log.",
            )


def _loss_of(event: Event) -> tuple[int, float] | None:
    if not isinstance(event, Metrics) or "loss" not in event.metrics:
        return None
    return int(event.metrics["step"]), event.metrics["loss"]
