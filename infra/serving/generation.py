"""One answer in the making: what was asked for, what has been generated, and the pieces in which it goes out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.serving.lora import Slot
from infra.serving.sampling import Choice, Sampling
from infra.serving.text import TextStream
from peft_studio.errors import StudioError


@dataclass(frozen=True)
class Token:
    """A generated token as ``logprobs`` shows it: its text, and the likeliest tokens at its place."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Piece:
    """What one step adds to an answer; the last one says why it is the last."""

    text: str = ""
    tokens: tuple[Token, ...] = ()
    finish_reason: str | None = None
    error: StudioError | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing comes after it."""
        return self.finish_reason is not None or self.error is not None


@dataclass(eq=False)
class Generation:
    """A request for an answer: the prompt's tokens, the adapter they go through, and how to go on from them."""

    prompt: Sequence[int]
    slot: Slot | None
    max_tokens: int
    end_tokens: frozenset[int]
    sampling: Sampling = field(default_factory=Sampling)
    stops: Sequence[str] = ()
    receive: Callable[[Piece], None] = lambda piece: None
    generated: list[int] = field(default_factory=list[int])
    cancelled: bool = False
    _text: TextStream | None = None

    @property
    def length(self) -> int:
        """The most tokens that prompt and answer may come to."""
        return len(self.prompt) + self.max_tokens

    def advance(self, choice: Choice, tokenizer: Any) -> Piece | None:
        """Take in the next token; return what it adds, None where nothing is certain yet."""
        if self._text is None:
            self._text = TextStream(tokenizer, self.prompt, self.stops)
        self.generated.append(choice.token)
        ended = choice.token in self.end_tokens
        text = "" if ended else self._text.add(choice.token)
        reason = "stop" if ended or self._text.stopped else None
        if reason is None and len(self.generated) >= self.max_tokens:
            reason = "length"
        if reason:
            text += self._text.end()
            reason = "stop" if self._text.stopped else reason
        tokens = () if choice.logprob is None or ended else (_token(choice, tokenizer),)
        return Piece(text, tokens, reason) if text or tokens or reason else None


def _token(choice: Choice, tokenizer: Any) -> Token:
    top = tuple((tokenizer.decode([token]), logprob) for token, logprob in choice.top)
    return Token(tokenizer.decode([choice.token]), choice.logprob or 0.0, top)
