"""What answers lose whose likelihood moves away from what their rewards are in favour of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from peft_studio.grpo import GrpoConfig
from peft_studio.trainer.data import Batch, Row
from peft_studio.trainer.loss import row_of_each
from peft_studio.trainer.objectives.criterion import Tally


@dataclass(frozen=True)
class Completion:
    """
    An answer behind its prompt, and what is known of it.

    ``advantage`` is how much better than the others to its prompt it is, ``reward`` its own, ``spread`` the standard
    deviation among them, ``judged`` what each function gave (nan: nothing). ``ended`` says that it was not cut. Of
    every token of the answer, ``old`` is the log-probability under the model that drew it, where steps were taken
    since, and ``reference`` that under the base model, where it is looked at.
    """

    texts: tuple[Row, ...]
    advantage: float
    reward: float
    spread: float
    judged: NDArray[np.float64]
    ended: bool
    old: NDArray[np.float32] | None = None
    reference: NDArray[np.float32] | None = None

    @property
    def length(self) -> int:
        """Tokens of the answer."""
        return self.texts[0].supervised


def policy_loss(
    log_probs: torch.Tensor,
    batch: Batch,
    items: Sequence[Completion],
    step: Sequence[Completion],
    settings: GrpoConfig,
    tally: Tally,
) -> torch.Tensor:
    """
    Return a batch's share in the loss of the step's completions; ``log_probs`` are those of all tokens of its answers.

    Equation 3 of the paper, clipped as there. ``grpo`` takes the mean over the tokens of each answer and then over
    answers, ``dapo`` that over all tokens (https://arxiv.org/abs/2503.14476), ``dr_grpo`` the sum over tokens by the
    most there could be (https://arxiv.org/abs/2503.20783); ``importance_sampling_level`` sequence is that of
    https://arxiv.org/abs/2507.18071. The divergence is estimated as in equation 4; its
    correction is that of https://arxiv.org/abs/2512.02556.
    """
    owner = row_of_each(batch)
    lengths = log_probs.new_tensor([item.length for item in items])
    advantages = log_probs.new_tensor([item.advantage for item in items])[owner]
    old = log_probs.detach() if items[0].old is None else _joined([item.old for item in items], log_probs)
    moved = log_probs - old
    if settings.importance_sampling_level == "sequence":
        moved = (log_probs.new_zeros(len(items)).index_add(0, owner, moved) / lengths)[owner]
    ratio = moved.exp()
    low, high = settings.clip
    losses = -torch.min(ratio * advantages, ratio.clamp(low, high) * advantages)
    tally.add("clip_ratio/region_mean", ((ratio < low) & (advantages < 0)) | ((ratio > high) & (advantages > 0)))
    if settings.beta:
        above = _joined([item.reference for item in items], log_probs) - log_probs
        divergence = above.exp() - above - 1
        if settings.use_bias_correction_kl:
            divergence = divergence * ratio
        tally.add("kl", divergence)
        losses = losses + settings.beta * divergence
    return (losses * log_probs.new_tensor([_weight(item, step, settings) for item in items])[owner]).sum()


def _weight(item: Completion, step: Sequence[Completion], settings: GrpoConfig) -> float:
    """How much each token of an answer counts in the loss of the step."""
    if settings.mask_truncated_completions and not item.ended:
        return 0.0
    match settings.loss_type:
        case "grpo":
            return 1 / (item.length * len(step))
        case "dr_grpo":
            return 1 / (settings.max_completion_length * len(step))
        case "dapo":
            learnt = (each for each in step if each.ended or not settings.mask_truncated_completions)
            return 1 / sum(each.length for each in learnt)


def tally_completions(tally: Tally, items: Sequence[Completion], names: Sequence[str]) -> None:
    """Count what answers are like, by TRL's names; ``names`` are those of the reward functions."""
    told = {
        "reward": [item.reward for item in items if not np.isnan(item.reward)],
        "reward_std": [item.spread for item in items],
        "frac_reward_zero_std": [float(np.isclose(item.spread, 0)) for item in items],
        "completions/mean_length": [float(item.length) for item in items],
        "completions/clipped_ratio": [float(not item.ended) for item in items],
    }
    for place, name in enumerate(names):
        told[f"rewards/{name}/mean"] = [item.judged[place] for item in items if not np.isnan(item.judged[place])]
    for name, values in told.items():
        tally.add(name, torch.tensor(values, dtype=torch.float64))


class Held:
    """The answers that several steps are taken on, as checkpoints hold them."""

    def __init__(self) -> None:
        self.completions: list[Completion] = []

    def state_dict(self) -> dict[str, Any]:
        """Return them as tensors and plain values."""
        return {"completions": [_stored(item) for item in self.completions]}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Put them back."""
        self.completions = [_restored(stored) for stored in state_dict["completions"]]


def _stored(item: Completion) -> dict[str, Any]:
    [row] = item.texts
    arrays = {"ids": row.ids, "learn": row.learn, "judged": item.judged, "old": item.old, "reference": item.reference}
    numbers = {name: getattr(item, name) for name in ("advantage", "reward", "spread", "ended")}
    return numbers | {name: torch.from_numpy(array) for name, array in arrays.items() if array is not None}


def _restored(stored: dict[str, Any]) -> Completion:
    known: dict[str, Any] = {
        name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in stored.items()
    }
    return Completion((Row(known.pop("ids"), known.pop("learn")),), **known)


def _joined(parts: Sequence[NDArray[np.float32] | None], like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([part for part in parts if part is not None])).to(like)
