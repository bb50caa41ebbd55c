"""A simulated judge: an OpenAI-compatible chat API whose verdict follows a rule, with what it was asked."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from litestar import Litestar, Request, post
from litestar.response import Response

_ANSWERS = re.compile(r"\[Answer A\]\n(.*)\n\n\[Answer B\]\n(.*)", re.DOTALL)


def prefers_the_longer(first: str, second: str) -> str:
    """Reply that the longer answer wins."""
    winner = "tie" if len(first) == len(second) else "A" if len(first) > len(second) else "B"
    return f'The longer one.\n{{"winner": "{winner}"}}'


@dataclass
class Bench:
    """How the judge replies, whom it lets in, and what it was asked so far; ``busy`` requests get a 429 first."""

    reply: Callable[[str, str], str] = prefers_the_longer
    key: str | None = None
    busy: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


def create_judge(bench: Bench) -> Litestar:
    """Put the judge together."""

    @post("/v1/chat/completions", status_code=200)
    async def complete(request: Request[Any, Any, Any]) -> Response[Any]:
        body = await request.json()
        if bench.key is not None and request.headers.get("Authorization") != f"Bearer {bench.key}":
            return Response({"error": {"message": "wrong key"}}, status_code=401)
        if bench.busy > 0:
            bench.busy -= 1
            return Response({"error": {"message": "busy"}}, status_code=429, headers={"Retry-After": "0"})
        bench.asked.append({"authorization": request.headers.get("Authorization"), **body})
        found = _ANSWERS.search(body["messages"][-1]["content"])
        said = bench.reply(*found.groups()) if found else "?"
        return Response({"choices": [{"message": {"role": "assistant", "content": said}}]})

    return Litestar([complete], logging_config=None, openapi_config=None)
