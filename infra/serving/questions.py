"""Questions in OpenAI's two forms, and what their answers say; the counterpart of ``answers``."""

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from peft_studio.effect import TOP, Said
from peft_studio.errors import ResourceUnavailable

COMPLETIONS, CHAT = "/completions", "/chat/completions"
_FIELDS = ("prompt", "max_tokens", "temperature")
Body = dict[str, Any]


class Answered(BaseModel):
    """An answer, how long it took, and how many tokens it came to."""

    text: str
    latency_ms: float
    tokens_generated: int


def prompted(model: str, prompt: str, *, chat: bool, max_tokens: int, temperature: float) -> tuple[str, Body]:
    """Return the path and body that have a model answer a prompt, through its chat template or as it stands."""
    body: Body = {"model": model, "max_tokens": max_tokens, "temperature": temperature}
    if chat:
        return CHAT, body | {"messages": [{"role": "user", "content": prompt}]}
    return COMPLETIONS, body | {"prompt": prompt}


def blamed(param: Any, text: str) -> str:
    """Return the field of a prompt that a refusal is about: the ``param`` it gives, or else the one in its words."""
    return str(param) if param in _FIELDS else next((name for name in _FIELDS[1:] if name in text), _FIELDS[0])


def probed(model: str, question: str | Sequence[int] | Sequence[Body], max_tokens: int) -> tuple[str, Body]:
    """Return the path and body that have a model answer a text, tokens or messages greedily, token by token."""
    body: Body = {"model": model, "max_tokens": max_tokens, "temperature": 0}
    if question and isinstance(question[0], dict):
        return CHAT, body | {"messages": question, "logprobs": True, "top_logprobs": TOP}
    return COMPLETIONS, body | {"prompt": question, "logprobs": TOP}


def answered(body: Any, seconds: float) -> Answered:
    """Read an answer that took so long; raises ``ResourceUnavailable`` where it is none."""
    choice = _choice(body)
    usage = body.get("usage") or {}
    return Answered(
        text=_text(choice), latency_ms=1e3 * seconds, tokens_generated=int(usage.get("completion_tokens") or 0)
    )


def said(body: Any) -> Said:
    """
    Read an answer token by token, without the token that ended it; in pieces where it has no log-probabilities.

    Raises ``ResourceUnavailable`` where it is no answer.
    """
    choice = _choice(body)
    text, shown = _text(choice), choice.get("logprobs") or {}
    if content := shown.get("content"):
        said = Said(
            tokens=[token["token"] for token in content],
            logprobs=[token["logprob"] for token in content],
            top=[{one["token"]: one["logprob"] for one in token.get("top_logprobs") or []} for token in content],
        )
    elif shown.get("token_logprobs"):
        top = shown.get("top_logprobs")
        top = top if isinstance(top, list) and top else [{}] * len(shown["tokens"])  # some have one for all places
        said = Said(tokens=shown["tokens"], logprobs=shown["token_logprobs"], top=[one or {} for one in top])
    else:
        return Said(tokens=re.findall(r"\s*\S+|\s+$", text))
    return _without_end(said) if choice.get("finish_reason") == "stop" and _shows_end(said, text) else said


def _shows_end(said: Said, text: str) -> bool:
    """Whether the token that ended an answer is shown, as vLLM does and the studio's own endpoint does not."""
    last = said.tokens[-1]
    return last == "" or not text.endswith(last)


def _without_end(said: Said) -> Said:
    return Said(tokens=said.tokens[:-1], logprobs=said.logprobs[:-1], top=said.top[:-1])


def _choice(body: Any) -> Body:
    try:
        choice = body["choices"][0]
        _text(choice)
    except (TypeError, KeyError, IndexError):
        raise ResourceUnavailable(
            "What answered is no OpenAI-compatible API; check the address of the platform."
        ) from None
    return choice


def _text(choice: Body) -> str:
    return str((choice["message"]["content"] if "message" in choice else choice["text"]) or "")
