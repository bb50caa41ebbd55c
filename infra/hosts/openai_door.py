"""Asking a platform through its OpenAI-compatible API: prompts, probes, requests handed on, and its errors in ours."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import BaseModel

from infra.hosts.base import Door
from infra.hosts.control import understood
from infra.platforms.vendors import VENDORS
from infra.providers import wire
from infra.providers.base import Account
from infra.serving.endpoint_client import Forwarded
from infra.serving.questions import Answered, answered, blamed, probed, prompted, said
from infra.vendor_http import Answer, Call, ask, read_answer, usual_trust
from peft_studio.effect import Said
from peft_studio.errors import InsufficientCredits, InvalidConfig, RateLimitExceeded, ResourceUnavailable, StudioError

ANSWER_SECONDS = 600.0
_PROBE_SECONDS = 60.0
_BUSY_SECONDS = 5


class ListedModel(BaseModel):
    """A model in an API's list; vLLM says of an adapter which model it is for."""

    id: str
    parent: str | None = None


class _Models(BaseModel):
    data: list[ListedModel]


@dataclass(frozen=True)
class OpenAIDoor:
    """
    One account's way through the OpenAI-compatible API of a platform (its name in ``VENDORS``).

    ``probing`` is added to the body of a probe, for what the platform needs to answer one token by token.
    """

    platform: str
    account: Account
    probing: Mapping[str, Any] = field(default_factory=dict[str, Any])

    async def ask(self, door: Door, prompt: str, *, chat: bool, max_tokens: int, temperature: float) -> Answered:
        """Have the door's model answer; raises ``InvalidConfig`` with the field that it does not take."""
        path, body = prompted(door.model, prompt, chat=chat, max_tokens=max_tokens, temperature=temperature)
        started = time.monotonic()
        return answered(await self._post(door, path, body, ANSWER_SECONDS), time.monotonic() - started)

    async def say(self, door: Door, model: str, question: str | list[dict[str, str]], max_tokens: int) -> Said:
        """Have a model answer greedily; in pieces without log-probabilities where the platform does not give any."""
        path, body = probed(model, question, max_tokens)
        try:
            return said(await self._post(door, path, body | dict(self.probing), _PROBE_SECONDS))
        except InvalidConfig as error:
            if "logprob" not in error.message:
                raise
        plain = {name: value for name, value in body.items() if not name.endswith("logprobs")}
        return said(await self._post(door, path, plain, _PROBE_SECONDS))

    async def models(self, door: Door) -> list[ListedModel]:
        """Return what the API lists as its models; some answer with a bare list."""
        answer = await ask(Call(f"{door.url}/models", headers=door.headers))
        if answer.status != 200:
            raise self.error(answer)
        listed = answer.body if isinstance(answer.body, dict) else {"data": answer.body}
        return understood(_Models, listed).data

    async def forward(self, door: Door, path: str, body: Mapping[str, Any]) -> Forwarded:
        """Hand a request on to the door's model; an answer comes as it is, a refusal is raised in our words."""
        client = httpx.AsyncClient(verify=usual_trust(), timeout=ANSWER_SECONDS, follow_redirects=False)
        try:
            request = client.build_request(
                "POST", door.url + path, headers=dict(door.headers), json={**body, **door.body, "model": door.model}
            )
            response = await client.send(request, stream=True)
            if response.status_code < 300:
                return Forwarded(client, response)
            answer = await read_answer(response)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            await client.aclose()
            raise ResourceUnavailable(f"{self._name} cannot be reached ({type(error).__name__}).") from None
        await client.aclose()
        raise self.error(answer)

    def error(self, answer: Answer) -> StudioError:
        """Return what an answer that is none means; the platform's words are in it, without the account's secrets."""
        text, field = self._words(answer)
        match answer.status:
            case 400 | 413 | 422:
                return InvalidConfig(f"{field}: {self._name} refuses it: {text}", field=field, issue=text)
            case 401 | 403:
                return wire.refused(self._name, self.platform, answer.status)
            case 402:
                return InsufficientCredits(
                    f"The account at {self._name} cannot pay: top it up, then try again.", platform=self.platform
                )
            case 404:
                return ResourceUnavailable(f"{self._name} does not serve the model (any more): {text}")
            case 429:
                return RateLimitExceeded(
                    f"{self._name} is asked too often at the moment (429); try again later.",
                    retry_after_seconds=answer.retry_after or _BUSY_SECONDS,
                )
            case status:
                return ResourceUnavailable(f"{self._name} answered {status}; try again in a moment. {text}".strip())

    async def _post(self, door: Door, path: str, body: Mapping[str, Any], seconds: float) -> Any:
        answer = await ask(Call(door.url + path, "POST", headers=door.headers, body={**body, **door.body}), seconds)
        if answer.status != 200:
            raise self.error(answer)
        return answer.body

    @property
    def _name(self) -> str:
        return VENDORS[self.platform].display_name

    def _words(self, answer: Answer) -> tuple[str, str]:
        """Return what the platform says is wrong, and with which field of ours."""
        body: Any = answer.body if isinstance(answer.body, dict) else {}
        error: Any = body.get("error", body.get("detail", body))
        said: Any = error.get("message", "") if isinstance(error, dict) else error
        param: Any = error.get("param") if isinstance(error, dict) else None
        text = wire.words(said, self.account)
        return text, blamed(param, text)
