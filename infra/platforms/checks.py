"""How a credential is tried at its platform: one cheap request that only a valid one can make."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, cast

from infra.vendor_http import Answer, Call, ask, trusting
from peft_studio.errors import CredentialRefused, InsufficientCredits, ResourceUnavailable

Values = Mapping[str, str]


class Verdict(Enum):
    """What a platform's answer means."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    NO_CREDIT = "no credit"
    UNCLEAR = "unclear"


def by_status(answer: Answer) -> Verdict:
    """Read an answer by its status alone."""
    match answer.status:
        case 200:
            return Verdict.ACCEPTED
        case 401 | 403:
            return Verdict.REFUSED
        case 402:
            return Verdict.NO_CREDIT
        case _:
            return Verdict.UNCLEAR


def bearer(values: Values) -> dict[str, str]:
    """Send the key as most platforms want it."""
    return {"Authorization": f"Bearer {values['api_key']}"}


def basic(user: str, password: str) -> dict[str, str]:
    """Send a name and a password."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def nothing(_: Values) -> dict[str, str]:
    """Send no credential."""
    return {}


@dataclass(frozen=True)
class Asked:
    """A platform that is asked: where it is, and which field of the credentials a refusal is about."""

    name: str
    display_name: str
    url: str
    blamed: str


class Trial(Protocol):
    """How credentials are tried."""

    async def run(self, platform: Asked, values: Values) -> None:
        """Try the credentials; raise ``CredentialRefused`` or ``InsufficientCredits``, or that it cannot be told."""
        ...


@dataclass(frozen=True)
class Check:
    """A request, and how to read its answer; ``expects`` is a name the JSON object of a real one has."""

    path: str | Callable[[Values], str]
    expects: str | None = None
    headers: Callable[[Values], dict[str, str]] = bearer
    method: str = "GET"
    body: Any = None
    verdict: Callable[[Answer], Verdict] = by_status
    certificates: str | None = None  # the field that holds the authorities to trust

    async def run(self, platform: Asked, values: Values) -> None:
        """Try the credentials; raise ``CredentialRefused`` or ``InsufficientCredits``, or that it cannot be told."""
        path = self.path if isinstance(self.path, str) else self.path(values)
        answer = await ask(
            Call(
                url=platform.url + path,
                method=self.method,
                headers=self.headers(values) | {"Accept": "application/json"},
                body=self.body,
                tls=trusting(values.get(self.certificates, "")) if self.certificates else True,
            )
        )
        match self.verdict(answer):
            case Verdict.ACCEPTED if self._is_real(answer.body):
                return
            case Verdict.REFUSED:
                raise CredentialRefused(
                    f"{platform.display_name} refused the credentials ({answer.status}): they are mistyped, expired, "
                    "or not allowed to do what the studio needs.",
                    platform=platform.name,
                    field=f"credentials.{platform.blamed}",
                )
            case Verdict.NO_CREDIT:
                raise InsufficientCredits(
                    f"{platform.display_name} knows the credentials, but the account cannot pay: top it up, then "
                    "connect again.",
                    platform=platform.name,
                )
            case _:
                raise _unavailable(platform, answer)

    def _is_real(self, body: Any) -> bool:
        if self.expects is None:
            return body is not None
        return isinstance(body, dict) and self.expects in body


def _unavailable(platform: Asked, answer: Answer) -> ResourceUnavailable:
    details: dict[str, Any] = {"platform": platform.name}
    if answer.retry_after is not None:
        details["retry_after_seconds"] = answer.retry_after
    match answer.status:
        case 200:
            issue = "what answers there is something else; check the address"
        case 429:
            issue = "it is asked too often at the moment (429); try again later"
        case status if 300 <= status < 400:
            issue = f"it sends requests elsewhere ({status}); give the address it has moved to"
        case status:
            issue = f"it answered {status}; try again later, or check the address"
    return ResourceUnavailable(f"{platform.display_name} could not check the credentials: {issue}.", **details)


def lambda_verdict(answer: Answer) -> Verdict:
    """An account without a way to pay is refused as inactive."""
    if answer.status == 403 and _at(answer.body, "error", "code") == "global/account-inactive":
        return Verdict.NO_CREDIT
    return by_status(answer)


def vast_verdict(answer: Answer) -> Verdict:
    """A wrong key is a 404 there; only the code in the body tells it from a wrong address."""
    return Verdict.REFUSED if _at(answer.body, "error") == "auth_error" else by_status(answer)


def fireworks_verdict(answer: Answer) -> Verdict:
    """A suspended account is a failed precondition."""
    return Verdict.NO_CREDIT if answer.status == 412 else by_status(answer)


def wandb_verdict(answer: Answer) -> Verdict:
    """GraphQL answers 200 to anyone; whoever has no valid key is nobody."""
    if answer.status == 200 and isinstance(answer.body, dict) and "data" in answer.body:
        return Verdict.ACCEPTED if _at(answer.body, "data", "viewer") else Verdict.REFUSED
    return by_status(answer)


def trackio_verdict(answer: Answer) -> Verdict:
    """Anyone may look there; the answer says whether the token is one that may write."""
    if answer.status == 200 and _at(answer.body, "data", "allowed") is not None:
        return Verdict.ACCEPTED if _at(answer.body, "data", "allowed") else Verdict.REFUSED
    return by_status(answer)


def _at(body: Any, *names: str) -> Any:
    for name in names:
        body = cast(dict[str, Any], body).get(name) if isinstance(body, dict) else None
    return body
