"""The training loop: from a model with a new adapter to a trained one, in steps that can be interrupted."""

import math
import random
import resource
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from peft_studio.algorithms import Algorithm
from peft_studio.config import TrainingConfig
from peft_studio.errors import Diverged
from peft_studio.trainer.adalora import RankAllocation
from peft_studio.trainer.checkpoint import Checkpoints, Progress, Stateful, random_state, set_random_state
from peft_studio.trainer.data import Row, collate, epoch_order
from peft_studio.trainer.loss import mean_loss, summed_loss
from peft_studio.trainer.optimizer import make_optimizer, set_learning_rate
from peft_studio.trainer.report import Reporter
from peft_studio.trainer.stop import Stopped, StopSignal

MAX_GRADIENT_NORM = 1.0
LINES = 100  # how many steps of a job have a line in the log, about


@dataclass(frozen=True)
class Schedule:
    """How many steps there are, and the learning rate of each."""

    steps_per_epoch: int
    total: int
    warmup: int
    peak: float

    @classmethod
    def of(cls, config: TrainingConfig, rows: int) -> "Schedule":
        """Every epoch sees every row once; its last step may be smaller."""
        batches = math.ceil(rows / config.batch_size)
        steps_per_epoch = math.ceil(batches / config.gradient_accumulation_steps)
        total = min(steps_per_epoch * config.num_epochs, config.max_steps or math.inf)
        return cls(steps_per_epoch, int(total), config.warmup_steps, config.learning_rate)

    def learning_rate(self, done: int) -> float:
        """The rate of the next step: linear from 0 to the peak, then linear to 0 behind the last step."""
        if done < self.warmup:
            return self.peak * (done / max(1, self.warmup))
        return self.peak * max(0.0, (self.total - done) / max(1, self.total - self.warmup))


class Training:
    """
    Trains a model's adapter on rows, from the newest checkpoint on.

    One optimizer step: the losses of all tokens that carry loss in ``batch_size * gradient_accumulation_steps`` rows,
    summed and divided by the number of these tokens, however they fall into batches.
    """

    def __init__(
        self,
        model: Any,
        rows: list[Row],
        held_out: list[Row],
        config: TrainingConfig,
        checkpoints: Checkpoints,
        report: Reporter,
        stop: StopSignal,
    ):
        self._model, self._rows, self._held_out, self._config = model, rows, held_out, config
        self._checkpoints, self._report, self._stop = checkpoints, report, stop
        self._schedule = Schedule.of(config, len(rows))
        self._trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._optimizer = make_optimizer(model, config)
        self._ranks = RankAllocation(model) if config.algorithm is Algorithm.ADALORA else None
        self._state: dict[str, Stateful] = {"optimizer": self._optimizer}
        if self._ranks:
            self._state["ranks"] = self._ranks
        self._progress = Progress()
        self._epoch, self._order = -1, list[int]()

    @property
    def epochs(self) -> float:
        """How often training has gone through the rows."""
        return self._progress.step / self._schedule.steps_per_epoch

    def run(self) -> Progress:
        """Train to the end; where a stop is asked for, save a checkpoint and raise ``Stopped``."""
        self._begin()
        progress, schedule = self._progress, self._schedule
        try:
            while True:
                if progress.step % schedule.steps_per_epoch == 0 or progress.step == schedule.total:
                    self._evaluate()
                if progress.step and (
                    progress.step % self._config.checkpoint_steps == 0 or self._checkpoints.requested
                ):
                    self._save()
                if progress.step == schedule.total:
                    return progress
                self._step()
        except Stopped:
            if progress.step:
                self._save()
            self._report.log(f"Stopped at step {progress.step}: {self._stop.reason}", "WARNING")
            raise

    def _begin(self) -> None:
        seed_everything(self._config.seed)
        restored = self._checkpoints.restore(self._model, self._state)
        total = self._schedule.total
        if restored is None:
            self._report.log(f"{len(self._rows)} rows, {total} steps")
            return
        self._progress = restored
        restored.resumed_at.append(restored.step)
        self._report.log(f"Taken up again at step {restored.step} of {total}")

    def _step(self) -> None:
        started, before = time.perf_counter(), random_state()
        progress = self._progress
        rows = self._rows_of_step(progress.step)
        supervised = sum(row.supervised for row in rows)
        try:
            loss = self._backward(rows, supervised)
        except Stopped:
            # What is saved then is the state before this step.
            self._optimizer.zero_grad()
            set_random_state(before)
            raise
        gradient = torch.nn.utils.clip_grad_norm_(self._trainable, MAX_GRADIENT_NORM).item()
        require_finite(loss, gradient, progress.step + 1)
        rate = self._schedule.learning_rate(progress.step)
        set_learning_rate(self._optimizer, rate)
        self._optimizer.step()
        if self._ranks:
            self._ranks.allocate(progress.step + 1)
        self._optimizer.zero_grad()

        tokens, seconds = sum(len(row.ids) for row in rows), time.perf_counter() - started
        progress.step += 1
        progress.tokens += tokens
        progress.supervised_tokens += supervised
        progress.seconds += seconds
        progress.loss = loss
        progress.best_loss = loss if progress.best_loss is None else min(loss, progress.best_loss)
        progress.peak_memory_mb = max(progress.peak_memory_mb, peak_memory_mb())
        self._say({"learning_rate": rate, "grad_norm": gradient, "tokens_per_second": tokens / seconds})

    def _rows_of_step(self, step: int) -> list[Row]:
        epoch, place = divmod(step, self._schedule.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(len(self._rows), self._config.seed, epoch)
        size = self._config.effective_batch_size
        return [self._rows[i] for i in self._order[place * size : (place + 1) * size]]

    def _backward(self, rows: list[Row], supervised: int) -> float:
        total = torch.zeros((), device=self._model.device)
        for i in range(0, len(rows), self._config.batch_size):
            self._stop.check()
            batch = collate(rows[i : i + self._config.batch_size], self._model.device)
            loss = summed_loss(self._model, batch) / supervised
            loss.backward()
            total += loss.detach()
        if self._ranks:
            self._ranks.penalty().backward()  # no part of the loss that is reported
        return total.item()

    def _say(self, numbers: dict[str, float]) -> None:
        progress, total, per_epoch = self._progress, self._schedule.total, self._schedule.steps_per_epoch
        line = None
        if progress.step in (1, total) or progress.step % math.ceil(total / LINES) == 0:
            epoch = (progress.step - 1) // per_epoch + 1
            epochs = math.ceil(total / per_epoch)
            line = f"Epoch {epoch}/{epochs}, Step {progress.step}/{total}, Loss: {progress.loss:.3f}"
        numbers = {"epoch": self.epochs, "loss": progress.loss, **numbers, "total_steps": total}
        self._report.step(progress.step, numbers, line)

    def _evaluate(self) -> None:
        progress = self._progress
        if not self._held_out or progress.evaluated_at == progress.step:
            return
        progress.eval_loss = mean_loss(self._model, self._held_out, self._config.batch_size, self._stop)
        progress.evaluated_at = progress.step
        self._report.evaluation(progress.step, self.epochs, progress.eval_loss)

    def _save(self) -> None:
        self._progress.epoch = self.epochs
        self._checkpoints.save(self._progress, self._model, self._state)


def seed_everything(seed: int) -> None:
    """Start every random generator from the seed."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def require_finite(loss: float, gradient: float, step: int) -> None:
    """Refuse to take a step that would ruin the adapter."""
    for name, value in (("loss", loss), ("gradient", gradient)):
        if not math.isfinite(value):
            raise Diverged(
                f"The {name} became {value} at step {step}.",
                field="learning_rate",
                issue="Lower learning_rate, add warmup_steps or set precision to float32, and look for broken rows.",
            )


def peak_memory_mb() -> float:
    """The most memory the process held so far: the GPU's where there is one, else its own."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB
