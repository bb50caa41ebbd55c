"""The next token of every row: the likeliest, or drawn at a temperature, from the row's own random numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_COLDEST = 1e-4  # below it the division overflows, and nothing but the likeliest token is ever drawn


@dataclass(frozen=True)
class Choice:
    """A chosen token, and with ``logprobs`` its log-probability and the likeliest tokens with theirs."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampling:
    """How one sequence's tokens are chosen; the same seed draws the same tokens, whatever else is in the batch."""

    def __init__(
        self, temperature: float = 0.0, top_p: float = 1.0, seed: int | None = None, logprobs: int | None = None
    ):
        self.temperature = temperature
        self.top_p = top_p
        self.logprobs = logprobs
        self._seed = seed
        self._random: torch.Generator | None = None

    def noise(self, size: int, device: torch.device) -> Tensor:
        """Draw one exponentially distributed number for each token of the vocabulary."""
        if self._random is None:
            self._random = torch.Generator(device)
            _ = self._random.seed() if self._seed is None else self._random.manual_seed(self._seed)
        return torch.empty(size, device=device).exponential_(generator=self._random)


@torch.inference_mode()
def choose(logits: Tensor, samplings: Sequence[Sampling]) -> list[Choice]:
    """Choose a token for each row of ``logits``."""
    logits = logits.float()
    chosen = logits.argmax(-1)
    drawn = [row for row, sampling in enumerate(samplings) if sampling.temperature > 0]
    if drawn:
        chosen[drawn] = _draw(logits[drawn], [samplings[row] for row in drawn])
    tokens: list[int] = chosen.tolist()
    choices = [Choice(token) for token in tokens]
    told = {row: sampling.logprobs for row, sampling in enumerate(samplings) if sampling.logprobs is not None}
    for row, count in told.items():
        logprobs = logits[row].log_softmax(-1)
        values, likeliest = logprobs.topk(count)
        top = tuple(zip(likeliest.tolist(), values.tolist(), strict=True))
        choices[row] = Choice(tokens[row], float(logprobs[tokens[row]]), top)
    return choices


def _draw(logits: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    warmth = torch.tensor([max(s.temperature, _COLDEST) for s in samplings], device=logits.device)
    odds = (logits / warmth.unsqueeze(1)).softmax(-1)
    if any(sampling.top_p < 1 for sampling in samplings):
        share = torch.tensor([sampling.top_p for sampling in samplings], device=logits.device)
        ordered, order = odds.sort(-1, descending=True)
        # A token stays if those likelier than it do not make up the share yet: the likeliest always stays.
        ordered[ordered.cumsum(-1) - ordered >= share.unsqueeze(1)] = 0
        odds = torch.zeros_like(odds).scatter_(-1, order, ordered)
    # The largest of p / exponential noise falls on each token with probability p: a draw without a sum to one.
    noise = torch.stack([sampling.noise(logits.shape[-1], logits.device) for sampling in samplings])
    return (odds / noise).argmax(-1)
