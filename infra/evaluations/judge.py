"""Asking a judge: any OpenAI-compatible API, twice for each row, with the answers changing places."""

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from infra.settings import Settings
from infra.vendor_http import Answer, Call, ask
from peft_studio.errors import AuthenticationFailed, InvalidConfig, ResourceUnavailable
from peft_studio.evaluation.comparison import Bootstrap
from peft_studio.evaluation.judging import Pair, Verdict, judged, messages_of, verdict_of
from peft_studio.evaluations import Judge, Judged

_AT_ONCE = 4
_SECONDS = 120.0
_TRIES = 5
_WAIT_SECONDS = 1.0  # doubled with every try, where the API does not say how long
_LONGEST_WAIT_SECONDS = 30.0
_REPLY_TOKENS = 1024  # some models think before they speak


def address_of(judge: Judge, settings: Settings) -> str:
    """Return where a judge is; raises ``InvalidConfig`` where neither the request nor the settings say."""
    if url := judge.url or settings.judge_url:
        return url.rstrip("/")
    raise InvalidConfig(
        "judge.url: the studio has no judge of its own.",
        field="judge.url",
        issue="Give the base address of an OpenAI-compatible API, or set PEFT_STUDIO_JUDGE_URL.",
    )


async def compare_answers(judge: Judge, pairs: Sequence[Pair], bootstrap: Bootstrap, settings: Settings) -> Judged:
    """
    Have a judge compare both models' answers to each row.

    Raises ``AuthenticationFailed`` and ``InvalidConfig`` where it refuses to, ``ResourceUnavailable`` where it is away.
    """
    door = _Door(judge, settings)

    async def both(pair: Pair) -> tuple[Verdict | None, Verdict | None]:
        first, second = [await door.reply(messages_of(pair, adapter_first=order)) for order in (True, False)]
        return verdict_of(first), verdict_of(second)

    return judged(judge.model, await asyncio.gather(*map(both, pairs)), bootstrap)


class _Door:
    def __init__(self, judge: Judge, settings: Settings):
        self._url, self._model = address_of(judge, settings), judge.model
        self._host = urlsplit(self._url).netloc.rpartition("@")[2]
        # The studio's key goes to the studio's judge alone, whatever address a request names.
        own = settings.judge_url is not None and self._url == settings.judge_url.rstrip("/")
        key = settings.judge_api_key if own else None
        self._headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def reply(self, messages: list[dict[str, str]]) -> str:
        """Return what the judge says, greedily."""
        body = {"model": self._model, "messages": messages, "temperature": 0, "max_tokens": _REPLY_TOKENS}
        call = Call(f"{self._url}/chat/completions", "POST", headers=self._headers, body=body)
        async with self._turns:
            for tried in range(_TRIES):
                answer = await ask(call, _SECONDS)
                if answer.status != 429 and answer.status < 500:
                    return self._said(answer)
                await asyncio.sleep(min(answer.retry_after or _WAIT_SECONDS * 2**tried, _LONGEST_WAIT_SECONDS))
        raise ResourceUnavailable(f"The judge at {self._host} is too busy, or fails; evaluate again later.")

    def _said(self, answer: Answer) -> str:
        if answer.status in (401, 403):
            raise AuthenticationFailed(f"The judge at {self._host} does not take the studio's key.", field="judge.url")
        if answer.status != 200:
            issue = f"The judge at {self._host} answers {answer.status} for the model {self._model!r}."
            raise InvalidConfig(issue, field="judge.model", issue="Name a model that it serves.")
        try:
            body: Any = answer.body
            return str(body["choices"][0]["message"]["content"] or "")
        except (TypeError, LookupError):
            return ""  # no reply that could be read
