"""The schedule: how many steps there are, and the learning rate of each."""

import math
from dataclasses import dataclass

from peft_studio.config import LearningRateSchedule, TrainingConfig
from peft_studio.grpo import iterations_of


@dataclass(frozen=True)
class Schedule:
    """How many steps there are, and the learning rate of each: those of transformers' schedules of these names."""

    steps_per_epoch: int
    total: int
    warmup: int
    config: TrainingConfig

    @classmethod
    def of(cls, config: TrainingConfig, rows: int) -> "Schedule":
        """Every epoch sees every row once, or so often as it is iterated on; its last step may be smaller."""
        batches = math.ceil(rows / config.batch_size)
        steps_per_epoch = math.ceil(batches / config.gradient_accumulation_steps) * iterations_of(config.grpo)
        total = int(min(steps_per_epoch * config.num_epochs, config.max_steps or math.inf))
        return cls(steps_per_epoch, total, config.warmup_steps or math.ceil(config.warmup_ratio * total), config)

    def learning_rate(self, done: int) -> float:
        """The rate of the next step: from 0 up to the peak while warming up, then as the schedule says."""
        peak = self.config.learning_rate
        if done < self.warmup:
            return peak * (done / max(1, self.warmup))
        least = self.config.lr_min_ratio
        return peak * (least + (1 - least) * self._share(done))

    def _share(self, done: int) -> float:
        """What is left, from 1 to 0, of the rate above its minimum."""
        gone = min(1.0, (done - self.warmup) / max(1, self.total - self.warmup))
        match self.config.lr_schedule:
            case LearningRateSchedule.LINEAR:
                return 1 - gone
            case LearningRateSchedule.COSINE:
                return _half_cosine(gone)
            case LearningRateSchedule.POLYNOMIAL:
                return (1 - gone) ** self.config.lr_power
            case LearningRateSchedule.CONSTANT | LearningRateSchedule.CONSTANT_WITH_WARMUP:
                return 1.0
            case LearningRateSchedule.WSD:
                fall = max(1, math.ceil(self.config.lr_decay_ratio * self.total))
                return _half_cosine(min(1.0, max(0, done - (self.total - fall)) / fall))


def _half_cosine(gone: float) -> float:
    return (1 + math.cos(math.pi * gone)) / 2
