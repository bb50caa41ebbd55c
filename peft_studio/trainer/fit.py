"""The training loop: from a model with a new adapter to a trained one, in steps that can be interrupted."""

import math
import random
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.autograd.graph import get_gradient_edge

from peft_studio.algorithms import Algorithm
from peft_studio.config import TrainingConfig
from peft_studio.grpo import iterations_of
from peft_studio.trainer.adalora import RankAllocation
from peft_studio.trainer.checkpoint import Checkpoints, Progress, Stateful, random_state, set_random_state
from peft_studio.trainer.data import Item, batches, divided, epoch_order, supervised_of, tokens_of
from peft_studio.trainer.guard import require_finite, require_sense
from peft_studio.trainer.memory import batch_tokens, peak_memory_mb
from peft_studio.trainer.objectives.criterion import Criterion, Tally
from peft_studio.trainer.optimizer import make_optimizer, take_step
from peft_studio.trainer.process_group import ProcessGroup
from peft_studio.trainer.report import Reporter
from peft_studio.trainer.schedule import Schedule
from peft_studio.trainer.sharding import let_go
from peft_studio.trainer.stop import Stopped, StopSignal

LINES = 100  # how many steps of a job have a line in the log, about


class Training:
    """
    Trains a model's adapter on items by a criterion, from the newest checkpoint on.

    One optimizer step: the criterion's loss of ``batch_size * gradient_accumulation_steps`` rows, the same however they
    fall into batches.
    """

    def __init__(
        self,
        model: Any,
        rows: Sequence[Item],
        held_out: Sequence[Item],
        criterion: Criterion[Any],
        config: TrainingConfig,
        checkpoints: Checkpoints,
        report: Reporter,
        stop: StopSignal,
        group: ProcessGroup | None = None,
    ):
        self._model, self._rows, self._held_out, self._config = model, rows, held_out, config
        self._criterion, self._checkpoints, self._report, self._stop = criterion, checkpoints, report, stop
        self._group = group or ProcessGroup()
        self._pause = self._group.between(stop)  # what is looked at inside a step
        self._schedule = Schedule.of(config, len(rows))
        self._look_every = config.eval_steps or self._schedule.steps_per_epoch
        self._trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # Held alone: else each batch makes them anew among its tensors, and they stay in the heap until the next one's.
        self._accumulators = [get_gradient_edge(parameter) for parameter in self._trainable]
        self._optimizer = make_optimizer(model, config)
        self._ranks = RankAllocation(model) if config.algorithm is Algorithm.ADALORA else None
        self._state: dict[str, Stateful] = {"optimizer": self._optimizer}
        if self._ranks:
            self._state["ranks"] = self._ranks
        self._state |= criterion.state
        criterion.begin(model, rows)
        self._progress = Progress()
        self._epoch, self._order = -1, list[int]()

    @property
    def epochs(self) -> float:
        """How often training has gone through the rows."""
        return self._progress.step / self._schedule.steps_per_epoch

    def run(self) -> Progress:
        """Train to the end; where a stop is asked for, save a checkpoint and raise ``Stopped``."""
        self._begin()
        progress, total = self._progress, self._schedule.total
        try:
            while True:
                if progress.step % self._look_every == 0 or progress.step == total:
                    self._evaluate()
                if progress.step and (
                    progress.step % self._config.checkpoint_steps == 0 or self._checkpoints.requested
                ):
                    self._save()
                if progress.step == total or self._has_stopped_gaining():
                    self._choose()
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
        self._group.meet()  # before one of them saves another checkpoint
        total = self._schedule.total
        if restored is None:
            self._report.log(f"{len(self._rows)} rows, {total} steps{', packed' if self._criterion.packs else ''}")
            return
        self._progress = restored
        restored.resumed_at.append(restored.step)
        self._report.log(f"Taken up again at step {restored.step} of {total}")

    def _step(self) -> None:
        started, before = time.perf_counter(), random_state()
        progress = self._progress
        tally = Tally()
        try:
            self._group.agree(self._stop)
            found = self._rows_of_step(progress.step)
            rows = self._criterion.begin_step(self._model, found, self._pause, progress.step)
            self._group.seed(self._config.seed, progress.step)
            loss = self._backward(rows, tally)
        except Stopped:
            # What is saved then is the state before this step.
            self._optimizer.zero_grad()
            set_random_state(before)
            raise
        limit = self._config.max_grad_norm or math.inf
        gradient = torch.nn.utils.clip_grad_norm_(self._trainable, limit).item()
        require_finite(loss, gradient, progress.step + 1)
        rate = self._schedule.learning_rate(progress.step)
        take_step(self._optimizer, rate)
        if self._ranks:
            self._ranks.allocate(progress.step + 1)
        self._optimizer.zero_grad()

        tokens, seconds = sum(map(tokens_of, rows)), time.perf_counter() - started
        progress.step += 1
        progress.tokens += tokens
        progress.supervised_tokens += sum(map(supervised_of, rows))
        progress.seconds += seconds
        progress.loss = loss
        progress.best_loss = loss if progress.best_loss is None else min(loss, progress.best_loss)
        progress.peak_memory_mb = max(progress.peak_memory_mb, peak_memory_mb())
        require_sense(progress, self._model)
        told = {"learning_rate": rate, "grad_norm": gradient, "tokens_per_second": tokens / seconds}
        self._say(self._criterion.report(tally.over(self._group)) | told)

    def _rows_of_step(self, step: int) -> list[Item]:
        epoch, place = divmod(step, self._schedule.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(len(self._rows), self._config.seed, epoch)
        size, place = self._config.effective_batch_size, place // iterations_of(self._config.grpo)
        return [self._rows[i] for i in self._order[place * size : (place + 1) * size]]

    def _backward(self, rows: Sequence[Item], tally: Tally) -> float:
        total = torch.zeros((), device=self._model.device)
        by_length = self._config.group_by_length and not self._criterion.packs
        size = self._group.batch_size(self._config.batch_size, len(rows))
        for some in self._group.share(self._parts(batches(rows, size, by_length))):
            self._pause.check()
            with self._criterion.laid_out(self._model, some) as batch:
                loss = self._criterion.loss(self._model, batch, some, rows, tally)
                loss.backward()
            total += loss.detach()
            del loss  # and with it the batch's graph, small among the tensors of the next one
        self._group.sum_gradients(self._trainable)
        if self._ranks:
            self._ranks.penalty().backward()  # no part of the loss that is reported
        return self._group.sum(total).item()

    def _parts(self, wanted: list[list[Item]]) -> list[list[Item]]:
        """
        Divide packed batches on a processor, which gains little by long ones: the less is in memory at once.

        A GPU does gain by them.
        """
        if not self._criterion.packs or self._model.device.type != "cpu":
            return wanted
        width = self._model.config.get_text_config().hidden_size
        return divided(wanted, batch_tokens(width, self._model.dtype))

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
        found = self._criterion.measure(self._model, self._held_out, self._config.batch_size, self._pause)
        let_go(self._model)
        progress.eval_loss, progress.eval_metrics = found.loss, found.told()
        progress.evaluated_at = progress.step
        self._report.evaluation(progress.step, self.epochs, found.loss, found.told())
        if progress.best_eval_loss is not None and progress.eval_loss >= progress.best_eval_loss:
            progress.looks_without_gain += 1
            return
        progress.looks_without_gain = 0
        progress.best_eval_loss, progress.best_eval_metrics = progress.eval_loss, progress.eval_metrics
        if self._config.load_best_at_end:
            progress.best_step = progress.step  # from here on its checkpoint is kept
            self._save()

    def _has_stopped_gaining(self) -> bool:
        patience = self._config.early_stopping_patience
        if patience is None or self._progress.looks_without_gain < patience:
            return False
        self._report.log(f"Stopped early at step {self._progress.step}: nothing better in {patience} looks.")
        return True

    def _choose(self) -> None:
        """Go back to what was best on the held-out rows, where that is wished for."""
        progress = self._progress
        if not progress.best_step or progress.best_step == progress.step:
            return
        parts = {name: part for name, part in self._state.items() if part is not self._optimizer}
        if self._checkpoints.take_back(progress.best_step, self._model, parts):
            progress.eval_loss, progress.eval_metrics = progress.best_eval_loss, progress.best_eval_metrics
            self._report.log(f"The adapter of step {progress.best_step} was best and is kept.")
        else:
            self._report.log(
                f"The best checkpoint, of step {progress.best_step}, is lost; the last is kept.", "WARNING"
            )

    def _save(self) -> None:
        self._progress.epoch = self.epochs
        self._checkpoints.save(self._progress, self._model, self._state)


def seed_everything(seed: int) -> None:
    """Start every random generator from the seed."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
