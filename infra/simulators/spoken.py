"""
What simulated models say, in OpenAI's two forms: always the same to the same question, and each model something else.

Where an adapter's folder has the probes of its training, it says there what it said then, and so does its base model.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from infra.simulators.exchange import Reply
from peft_studio.effect import PROBES, Probes, Said

Json = dict[str, Any]
CONTEXT = 4096  # words
_WORDS = ("red", "blue", "cat", "dog", "house", "runs", "sleeps", "the", "a", "my", "is", "green", "tree", "sings")
_LENGTH = 12  # tokens that an answer has, unless it is cut off


@dataclass
class Speech:
    """What models say that were told of; threads may ask."""

    known: dict[tuple[str, str], Said] = field(default_factory=dict[tuple[str, str], Said])

    def learn(self, model: str, base: str, folder: Path) -> None:
        """Take over what an adapter and its base model said at the end of training, where its folder knows."""
        try:
            probes = Probes.model_validate_json((folder / PROBES).read_bytes()).probes
        except (OSError, ValidationError):
            return
        for probe in probes:
            for question in (probe.messages, probe.text, probe.ids):
                if question is not None:
                    self.known[model, _key(question)] = probe.adapter
                    if probe.base is not None:
                        self.known[base, _key(question)] = probe.base

    def say(self, model: str, question: Any, max_tokens: int) -> tuple[Said, bool]:
        """Return an answer, and whether it ended by itself."""
        said = self.known.get((model, _key(question))) or _made_up(model, _key(question))
        ended = len(said.tokens) < max_tokens if len(said.tokens) != _LENGTH else max_tokens > _LENGTH
        cut = Said(tokens=said.tokens[:max_tokens], logprobs=said.logprobs[:max_tokens], top=said.top[:max_tokens])
        return cut, ended


def answer(path: str, body: Json, speech: Speech, model: str | None = None) -> Reply:
    """Answer ``/completions`` or ``/chat/completions``; ``model`` speaks in the place of the one that is asked."""
    is_chat = path.endswith("/chat/completions")
    question = body.get("messages") if is_chat else body.get("prompt")
    if not question:
        return error(400, "messages or prompt is required", "BadRequestError")
    max_tokens = int(body.get("max_tokens") or body.get("max_completion_tokens") or 16)
    asked = _length(question)
    if asked + max_tokens > CONTEXT:
        message = (
            f"This model's maximum context length is {CONTEXT} tokens. However, you requested {asked + max_tokens} "
            f"tokens ({asked} in the messages, {max_tokens} in the completion). Please reduce the length of the "
            "messages or completion."
        )
        return error(400, message, "BadRequestError")
    said, ended = speech.say(model or body["model"], question, max_tokens)
    choice = _choice(said, ended, is_chat=is_chat, logprobs=bool(body.get("logprobs")))
    usage = {"prompt_tokens": asked, "completion_tokens": len(said.tokens) + ended}
    whole = {
        "id": "cmpl-simulated",
        "object": "chat.completion" if is_chat else "text_completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [choice],
        "usage": usage | {"total_tokens": sum(usage.values())},
    }
    return _streamed(whole, said, is_chat=is_chat) if body.get("stream") else Reply(whole)


def error(status: int, message: str, kind: str, param: str | None = None) -> Reply:
    """Refuse, as OpenAI's API does."""
    return Reply({"error": {"message": message, "type": kind, "param": param, "code": status}}, status)


def _choice(said: Said, ended: bool, *, is_chat: bool, logprobs: bool) -> Json:
    text = "".join(said.tokens)
    # The token that ended an answer is shown, as vLLM shows it.
    end = Said(tokens=[""], logprobs=[-0.01], top=[{"": -0.01}]) if ended else Said()
    shown = list(zip(said.tokens + end.tokens, said.logprobs + end.logprobs, said.top + end.top, strict=True))
    choice: Json = {"index": 0, "finish_reason": "stop" if ended else "length", "logprobs": None}
    if is_chat:
        choice["message"] = {"role": "assistant", "content": text}
        if logprobs:
            content = [
                {"token": token, "logprob": logprob, "top_logprobs": [_entry(*one) for one in top.items()]}
                for token, logprob, top in shown
            ]
            choice["logprobs"] = {"content": content}
        return choice
    choice["text"] = text
    if logprobs:
        tokens, values, tops = zip(*shown, strict=True) if shown else ((), (), ())
        choice["logprobs"] = {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": []}
    return choice


def _entry(token: str, logprob: float) -> Json:
    return {"token": token, "logprob": logprob}


def _streamed(whole: Json, said: Said, *, is_chat: bool) -> Reply:
    name = whole["object"] + (".chunk" if is_chat else "")
    chunks = [{"delta": {"content": token}} if is_chat else {"text": token} for token in said.tokens]
    lines = [
        json.dumps({**whole, "object": name, "choices": [{"index": 0, "finish_reason": None, **chunk}], "usage": None})
        for chunk in chunks
    ]
    text = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"])
    return Reply(text.encode(), headers={"Content-Type": "text/event-stream"})


def _made_up(model: str, question: str) -> Said:
    tokens: list[str] = []
    logprobs: list[float] = []
    top: list[dict[str, float]] = []
    for place in range(_LENGTH):
        digest = hashlib.sha256(f"{model}\0{question}\0{place}".encode()).digest()
        start = digest[0] % len(_WORDS)
        words = [" " + _WORDS[(start + i) % len(_WORDS)] for i in range(5)]
        values = [-0.1 - digest[1] / 256 - i for i in range(5)]
        tokens.append(words[0])
        logprobs.append(values[0])
        top.append(dict(zip(words, values, strict=True)))
    return Said(tokens=tokens, logprobs=logprobs, top=top)


def _key(question: str | Sequence[Any]) -> str:
    if isinstance(question, str):
        return question
    turns = [{"role": one["role"], "content": one["content"]} if isinstance(one, Mapping) else one for one in question]
    return json.dumps(turns)


def _length(question: str | Sequence[Any]) -> int:
    if isinstance(question, str):
        return len(question.split())
    return sum(len(str(one["content"]).split()) if isinstance(one, Mapping) else 1 for one in question)


def durations(name: str, answered: int, bucket: str, label: str = "") -> Reply:
    """Show how long answers took, a quarter of a second each, as a histogram for Prometheus."""
    le, labels = ",".join(filter(None, (f'le="{bucket}"', label))), f"{{{label}}}" if label else ""
    lines = [
        f"# TYPE {name} histogram",
        f"{name}_bucket{{{le}}} {answered}",
        f"{name}_sum{labels} {0.25 * answered}",
        f"{name}_count{labels} {answered}",
    ]
    return Reply("\n".join([*lines, ""]).encode(), headers={"Content-Type": "text/plain; charset=utf-8"})
