"""Generated tokens as text while they come: whole characters only, and nothing from a stop string on."""

from collections.abc import Sequence
from typing import Any

_CONTEXT = 6
_TORN = "\ufffd"  # what a character decodes to while some of its bytes are still to come


class TextStream:
    """Turns one sequence's tokens into text, piece by piece."""

    def __init__(self, tokenizer: Any, prompt: Sequence[int], stops: Sequence[str] = ()):
        self._tokenizer = tokenizer
        # Decoded with the end of the prompt in front: some tokenizers drop a blank at the beginning of a text.
        self._tokens = list(prompt[-_CONTEXT:])
        if self._decode(self._tokens).endswith(_TORN):
            self._tokens = []
        self._start = 0
        self._read = len(self._tokens)
        self._stops = stops
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """Return the text that is certain after one more token; ``stopped`` says that a stop string has come."""
        self._tokens.append(token)
        before = self._decode(self._tokens[self._start : self._read])
        text = self._decode(self._tokens[self._start :])
        if text.endswith(_TORN) and len(self._tokens) - self._read < 8:
            return ""
        self._start, self._read = self._read, len(self._tokens)
        return self._certain(text[len(before) :])

    def end(self) -> str:
        """Return what was held back, once no more tokens come."""
        if self.stopped:
            return ""
        before = self._decode(self._tokens[self._start : self._read])
        rest = self._certain(self._decode(self._tokens[self._start :])[len(before) :])
        held, self._held = self._held, ""
        return rest + held

    def _decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _certain(self, text: str) -> str:
        """Hold back what may yet become a stop string; drop everything from one on."""
        text = self._held + text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` are a beginning of ``stop``."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
