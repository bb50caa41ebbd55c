"""Group relative policy optimization (https://arxiv.org/abs/2402.03300): answers that beat the others to a prompt."""

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from peft_studio.config import LongRows, TrainingConfig
from peft_studio.datasets import Example
from peft_studio.errors import InvalidConfig
from peft_studio.grpo import GrpoConfig
from peft_studio.trainer.answers import stop_tokens
from peft_studio.trainer.checkpoint import Stateful
from peft_studio.trainer.data import Batch, Encoded, Prompt, Row, batches
from peft_studio.trainer.evaluating import evaluating
from peft_studio.trainer.loss import RowQualities, token_log_probs
from peft_studio.trainer.model import Base
from peft_studio.trainer.objectives.criterion import Criterion, Measured, Tally
from peft_studio.trainer.objectives.grpo_loss import Completion, Held, policy_loss, tally_completions
from peft_studio.trainer.render import Renderer
from peft_studio.trainer.rewards import Answered, Rewards
from peft_studio.trainer.sampling import Ends, Tokens, draws, sample
from peft_studio.trainer.stop import StopSignal

MEASURED = -1  # in a step's place: what decides the answers to held-out rows is the same at every look
Answers = tuple[Prompt, list[Tokens], NDArray[np.float64]]  # a prompt, what was drawn for it, what functions gave


class Grpo(Criterion[Any]):
    """
    Draws answers to a step's prompts, has them rewarded, and learns to give those again that beat the others.

    The reference is the base model: the model with its adapter switched off. ``Completion`` items are what a step's
    batches consist of; the mean that the loss is goes over all of the step.
    """

    def __init__(self, config: TrainingConfig, base: Base):
        super().__init__(config, base)
        assert config.grpo
        self._settings: GrpoConfig = config.grpo
        self._rewards = Rewards(config.grpo.rewards)
        self._held = Held()
        self._renderer: Renderer | None = None
        self._ends = Ends((base.end,), base.end)

    @property
    def state(self) -> Mapping[str, Stateful]:
        """The answers that the next steps are taken on, too."""
        return {"answers": self._held} if self._settings.num_iterations > 1 else {}

    def encode(self, examples: Sequence[Example], renderer: Renderer, limit: int) -> Encoded[Prompt]:
        """Tokenize prompts; of those that are too long, where they are not left out, the end is kept."""
        self._renderer, limit = renderer, min(limit, self._room())
        found: list[Prompt] = []
        long, drop = 0, self._config.long_rows is LongRows.DROP
        for example in examples:
            self._rewards.require_columns(example.number, example.columns)
            text, _ = renderer.prompt(example.texts[0])
            ids = self._base.tokenizer(text, add_special_tokens=renderer.literal)["input_ids"] or [self._base.end]
            long += len(ids) > limit
            if len(ids) <= limit or not drop:
                found.append(Prompt(_silent(np.array(ids[-limit:], dtype=np.int64)), example))
        return Encoded(found, truncated=0 if drop else long, dropped=long if drop else 0)

    def _room(self) -> int:
        most = self._settings.max_completion_length
        room = self._base.longest(sys.maxsize, self._config.virtual_tokens) - most
        if room < 1:
            field = "grpo.max_completion_length"
            issue = f"the base model has no room for a prompt and answers of {most} tokens; lower it"
            raise InvalidConfig.of(field, issue)
        return room

    def begin(self, model: Any, items: Sequence[Prompt]) -> None:
        """Find out how texts can be laid out for this model, and which tokens end its answers."""
        assert self._renderer
        self._ends = Ends(tuple(stop_tokens(model, self._base, self._renderer)), self._base.end)
        super().begin(model, items)

    def laid_out_like(self, items: Sequence[Prompt]) -> list[Row]:
        """Return the first and the last prompt, and between them one as long as any with its answer can be."""
        rows = [item.text for item in items]
        longest = max(len(row.ids) for row in rows) + self._settings.max_completion_length
        return [rows[0], _silent(np.resize(rows[0].ids, longest)), rows[-1]]

    def begin_step(
        self, model: Any, items: Sequence[Prompt], stop: StopSignal, step: int | None = None
    ) -> Sequence[Completion]:
        """Draw the answers to a step's prompts and have them judged, or take those of the step before once more."""
        if step is not None and step % self._settings.num_iterations and self._held.completions:
            return self._held.completions
        with evaluating(model):
            found = self._compared(self._answered(model, items, stop, MEASURED if step is None else step))
            if step is None:
                return found
            if self._settings.num_iterations > 1:
                found = self._asked(model, found, stop, "old")
            if self._settings.beta:
                with _without_adapter(model):
                    found = self._asked(model, found, stop, "reference")
        self._held.completions = found
        return found

    def loss(
        self, model: Any, batch: Batch, items: Sequence[Completion], step: Sequence[Completion], tally: Tally
    ) -> torch.Tensor:
        """Return the losses of a batch's answers, as a share of the step's mean."""
        tally_completions(tally, items, self._rewards.names)
        log_probs = token_log_probs(model, batch, self._chunk, self._settings.temperature)
        return policy_loss(log_probs, batch, items, step, self._settings, tally)

    def measure(self, model: Any, items: Sequence[Prompt], batch_size: int, stop: StopSignal) -> Measured:
        """Draw answers to held-out prompts and have them judged; the loss is what the mean reward lacks of 0."""
        if not items:
            return Measured(np.nan)
        tally, found = Tally(), self.begin_step(model, items, stop)
        tally_completions(tally, found, self._rewards.names)
        metrics = self.report(tally)
        rewards = np.array([item.reward for item in found]).reshape(len(items), -1)
        judged = np.array([not np.isnan(own).all() for own in rewards], dtype=np.float64)
        rows = RowQualities(-np.array([_mean(own) for own in rewards]), np.full(len(items), np.nan), judged)
        return Measured(-metrics.get("reward", 0.0), metrics=metrics, rows=rows)

    def _answered(self, model: Any, items: Sequence[Prompt], stop: StopSignal, step: int) -> list[Answers]:
        size, found = self._config.batch_size, list[Answers]()
        for some in (items[start : start + size] for start in range(0, len(items), size)):
            drawn = [draws(self._settings, self._config.seed, step, item.example.number) for item in some]
            prompts = [item.text.ids for item in some]
            answers = sample(model, prompts, drawn, self._ends, self._settings, stop)
            for item, own in zip(some, answers, strict=True):
                stop.check()
                found.append((item, own, self._rewards.of(self._told(item, own))))
        return found

    def _told(self, item: Prompt, answers: Sequence[Tokens]) -> Answered:
        asked = item.example.texts[0]
        return Answered(
            number=item.example.number,
            prompt=[turn.as_turn() for turn in asked.messages] if asked.messages else asked.prompt,
            answers=[self._base.tokenizer.decode(ids, skip_special_tokens=True) for ids in answers],
            tokens=[ids.tolist() for ids in answers],
            columns=item.example.columns,
        )

    def _compared(self, found: Sequence[Answers]) -> list[Completion]:
        """Say of every answer how much better than the others it is, and lay it out behind its prompt."""
        worth = np.stack([self._rewards.total(judged) for _, _, judged in found])
        completions: list[Completion] = []
        for (prompt, answers, judged), own, gains in zip(
            found, worth, advantages(worth, self._settings.scale_rewards), strict=True
        ):
            completions += [
                Completion(
                    (_behind(prompt.text, ids),),
                    advantage=float(gains[place]),
                    reward=float(own[place]),
                    spread=_deviation(own),
                    judged=judged[place],
                    ended=bool(np.isin(ids[-1], self._ends.stops)),
                )
                for place, ids in enumerate(answers)
            ]
        return completions

    def _asked(self, model: Any, found: Sequence[Completion], stop: StopSignal, name: str) -> list[Completion]:
        """Note down how likely the model finds every token of the answers."""
        known: dict[int, Completion] = {}
        for some in batches(found, self._config.batch_size, by_length=True):
            stop.check()
            with self.laid_out(model, some) as batch:
                told = token_log_probs(model, batch, self._chunk, self._settings.temperature).float().cpu().numpy()
            ends = np.cumsum([item.length for item in some])[:-1]
            known |= {
                id(item): replace(item, **{name: own}) for item, own in zip(some, np.split(told, ends), strict=True)
            }
        return [known[id(item)] for item in found]


def advantages(rewards: NDArray[np.float64], scale: str) -> NDArray[np.float64]:
    """
    Say how much better than the others to its prompt each answer is; the shape of both is (prompts, answers).

    By the standard deviation of its prompt's rewards (``scale`` group), of all (batch) or as it is (none), as in TRL;
    an answer that nothing was said of gets 0.
    """
    gains = rewards - np.array([[_mean(own)] for own in rewards])
    if scale != "none":
        spreads = [[_deviation(own if scale == "group" else rewards)] for own in rewards]
        gains = gains / (np.array(spreads) + 1e-4)
    return np.nan_to_num(gains)


def _silent(ids: Tokens) -> Row:
    return Row(ids, np.zeros(len(ids), dtype=np.bool_))


def _behind(prompt: Row, answer: Tokens) -> Row:
    learn = np.ones(len(answer), dtype=np.bool_)
    return Row(np.concatenate([prompt.ids, answer]), np.concatenate([prompt.learn, learn]))


def _mean(rewards: NDArray[np.float64]) -> float:
    known = rewards[~np.isnan(rewards)]
    return float(known.mean()) if len(known) else 0.0


def _deviation(rewards: NDArray[np.float64]) -> float:
    known = rewards[~np.isnan(rewards)]
    return float(known.std(ddof=1)) if len(known) > 1 else 0.0


def _without_adapter(model: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.disable_adapter()
