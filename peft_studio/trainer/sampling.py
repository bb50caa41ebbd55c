"""Sampled answers: several to each prompt, all at once, drawn alike however the prompts are laid out."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.generation.logits_process import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList

from peft_studio.grpo import GrpoConfig
from peft_studio.trainer.stop import StopSignal

Tokens = NDArray[np.int64]


@dataclass(frozen=True)
class Ends:
    """The tokens that end an answer, and one to fill up with what has ended."""

    stops: tuple[int, ...]
    padding: int


def draws(settings: GrpoConfig, *of: int) -> torch.Tensor:
    """
    Draw what decides the answers to a prompt: one number in [0, 1) a token, of shape (answers, tokens).

    They follow from the whole numbers given alone, so that whoever asks again gets the same ones.
    """
    seed = int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:8]) & (2**63 - 1)
    generator = torch.Generator().manual_seed(seed)
    shape = (settings.num_generations, settings.max_completion_length)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


@torch.no_grad()
def sample(
    model: Any,
    prompts: Sequence[Tokens],
    drawn: Sequence[torch.Tensor],
    ends: Ends,
    settings: GrpoConfig,
    stop: StopSignal,
) -> list[list[Tokens]]:
    """
    Answer each prompt ``num_generations`` times, up to and with a stop token or ``max_completion_length`` tokens.

    Raises ``Stopped`` between two tokens where a stop is asked for.
    """
    count, longest = settings.num_generations, max(map(len, prompts))
    ids, seen = padded(prompts, ends.padding)
    output = model.generate(
        input_ids=ids.repeat_interleave(count, 0).to(model.device),
        attention_mask=seen.repeat_interleave(count, 0).to(model.device),
        max_new_tokens=settings.max_completion_length,
        do_sample=False,  # the last of these has chosen
        temperature=None,
        top_p=None,
        top_k=None,
        logits_processor=_choosing(settings, torch.cat(list(drawn)).to(model.device)),
        stopping_criteria=asking(stop),
        eos_token_id=list(ends.stops),
        pad_token_id=ends.padding,
        use_cache=True,
    )
    answers = [until(row, ends.stops) for row in output[:, longest:].cpu().numpy()]
    return [answers[start : start + count] for start in range(0, len(answers), count)]


def padded(prompts: Sequence[Tokens], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay prompts out side by side, (prompts, tokens), and say which tokens are theirs; all answers begin in line."""
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), padding)
    seen = torch.zeros_like(ids)
    for place, prompt in enumerate(prompts):
        ids[place, longest - len(prompt) :] = torch.from_numpy(prompt)
        seen[place, longest - len(prompt) :] = 1
    return ids, seen


def until(tokens: Tokens, stops: Sequence[int]) -> Tokens:
    """Return the first tokens, up to and with one that ends an answer."""
    ended = np.isin(tokens, list(stops)).nonzero()[0]
    return tokens[: ended[0] + 1] if len(ended) else tokens


def asking(stop: StopSignal) -> StoppingCriteriaList:
    """Have ``generate`` ask between two tokens whether all is to be stopped."""
    return StoppingCriteriaList([_Ask(stop)])


def _choosing(settings: GrpoConfig, drawn: torch.Tensor) -> LogitsProcessorList:
    steps: list[LogitsProcessor] = []
    if settings.temperature != 1:
        steps.append(TemperatureLogitsWarper(settings.temperature))
    if settings.top_k:
        steps.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1:
        steps.append(TopPLogitsWarper(settings.top_p))
    return LogitsProcessorList([*steps, _Drawn(drawn)])


class _Drawn(LogitsProcessor):
    """Chooses the token in whose share of [0, 1) the number drawn for it falls: a sample of the distribution."""

    def __init__(self, drawn: torch.Tensor):
        self._drawn, self._place = drawn, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        shares = scores.double().softmax(-1).cumsum(-1)
        wanted = self._drawn[:, self._place, None] * shares[:, -1:]
        chosen = torch.searchsorted(shares, wanted, right=True).clamp(max=scores.shape[-1] - 1)
        self._place += 1
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen, 0.0)


class _Ask(StoppingCriteria):
    """Ends nothing itself, but asks whether all is to be stopped."""

    def __init__(self, stop: StopSignal):
        self._stop = stop

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        self._stop.check()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
