"""Answers in OpenAI's two forms, whole or in chunks."""

import time
from collections.abc import Sequence
from typing import Any, Protocol
from uuid import uuid4

from infra.serving.generation import Generation, Piece, Token

Body = dict[str, Any]


class Form(Protocol):
    """How one kind of request is answered."""

    def whole(self, text: str, tokens: Sequence[Token], reason: str | None) -> Body:
        """Return the one choice of a whole answer."""
        ...

    def part(self, piece: Piece, *, is_first: bool) -> Body:
        """Return the one choice of a chunk."""
        ...

    def envelope(self, choices: list[Body], *, is_chunk: bool) -> Body:
        """Return the body around the choices."""
        ...


class CompletionForm:
    """``text_completion``."""

    def __init__(self, model: str, logprobs: bool):
        self._common = {"id": f"cmpl-{uuid4().hex}", "created": int(time.time()), "model": model}
        self._logprobs = logprobs
        self._said = 0

    def whole(self, text: str, tokens: Sequence[Token], reason: str | None) -> Body:
        """Return the one choice of a whole answer."""
        shown = self._shown(tokens) if self._logprobs else None
        return {"index": 0, "text": text, "finish_reason": reason, "logprobs": shown}

    def part(self, piece: Piece, *, is_first: bool) -> Body:
        """Return the one choice of a chunk."""
        return self.whole(piece.text, piece.tokens, piece.finish_reason)

    def envelope(self, choices: list[Body], *, is_chunk: bool) -> Body:
        """Return the body around the choices."""
        return {**self._common, "object": "text_completion", "choices": choices}

    def _shown(self, tokens: Sequence[Token]) -> Body:
        offsets: list[int] = []
        for token in tokens:
            offsets.append(self._said)
            self._said += len(token.text)
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [dict(token.top) for token in tokens],
            "text_offset": offsets,
        }


class ChatForm:
    """``chat.completion`` and ``chat.completion.chunk``."""

    def __init__(self, model: str, logprobs: bool):
        self._common = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time.time()), "model": model}
        self._logprobs = logprobs

    def whole(self, text: str, tokens: Sequence[Token], reason: str | None) -> Body:
        """Return the one choice of a whole answer."""
        return self._choice(tokens, reason, message={"role": "assistant", "content": text})

    def part(self, piece: Piece, *, is_first: bool) -> Body:
        """Return the one choice of a chunk."""
        delta: Body = {"role": "assistant"} if is_first else {}
        if piece.text or is_first:
            delta["content"] = piece.text
        return self._choice(piece.tokens, piece.finish_reason, delta=delta)

    def envelope(self, choices: list[Body], *, is_chunk: bool) -> Body:
        """Return the body around the choices."""
        return {**self._common, "object": f"chat.completion{'.chunk' if is_chunk else ''}", "choices": choices}

    def _choice(self, tokens: Sequence[Token], reason: str | None, **said: Body) -> Body:
        shown = {"content": [_shown(token) for token in tokens]} if self._logprobs else None
        return {"index": 0, **said, "finish_reason": reason, "logprobs": shown}


def usage(generation: Generation) -> Body:
    """Count a generation's tokens; the one that ended it is among them."""
    prompt, answer = len(generation.prompt), len(generation.generated)
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def _shown(token: Token) -> Body:
    top = [_entry(text, logprob) for text, logprob in token.top]
    return {**_entry(token.text, token.logprob), "top_logprobs": top}


def _entry(text: str, logprob: float) -> Body:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
