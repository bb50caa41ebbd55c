"""Asking a platform's control plane: what may be asked twice, what is there already, and its refusals in our words."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from infra.platforms.vendors import VENDORS
from infra.providers import wire
from infra.providers.base import Account, NoCapacity, Unclear
from infra.vendor_http import Answer, Call
from peft_studio.deployments import DeploymentConfig
from peft_studio.errors import InsufficientCredits, InvalidConfig, ResourceUnavailable, StudioError

_PAGES = 1000
_NOT_YET = (400, 409, 412, 422)  # what is in use, or is just being stopped
Shape = TypeVar("Shape", bound=BaseModel)
_NO_ROOM = re.compile(
    r"capacity|quota|no longer available|not (currently )?available|unavailable|out of stock|sold out|exhausted", re.I
)
_NO_CREDIT = re.compile(r"suspend|payment|billing|credit", re.I)
# What the platform's words on a refusal are about, in fields of ours; what is about none of these is the adapter.
_FIELDS = (
    (re.compile(r"instance|hardware|accelerator|compute|sku|region|placement|profile|\bgpu", re.I), "instance_type"),
    (re.compile(r"min\w*[ _]?replica|min_instances", re.I), "min_replicas"),
    (re.compile(r"replica|max_instances|scaling", re.I), "max_replicas"),
)


class _Page(BaseModel):
    items: list[dict[str, Any]]


class _Row(BaseModel):
    name: str


class _Rows(BaseModel):
    rows: list[_Row]


@dataclass(frozen=True)
class ControlPlane:
    """
    One account's way into a platform (its name in ``VENDORS``); ``repr`` shows no credential.

    ``base`` is where it is asked, where that is not the account's address.
    """

    platform: str
    account: Account
    base: str = ""
    patience: float = wire.PATIENCE_SECONDS
    create_seconds: float = wire.CREATE_SECONDS
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    async def get(self, path: str, **params: str) -> Any:
        """Return what lies below a path; None where nothing does."""
        return await self._done(self.call(path, params=params))

    async def delete(self, path: str, body: Any = None, **params: str) -> bool:
        """Take something off, if it is there; False where the platform does not let go of it yet."""
        answer = await wire.read(self.call(path, "DELETE", body, params), self.patience)
        if answer.status in _NOT_YET:
            return False
        if answer.status >= 300 and answer.status != 404:
            raise self.error(answer)
        return True

    async def pages(self, path: str, key: str, cursor: str, parameter: str, **params: str) -> list[dict[str, Any]]:
        """Return a list to its end; ``cursor`` is what a page has where another follows, sent as ``parameter``."""
        found, asked = list[dict[str, Any]](), dict(params)
        for _ in range(_PAGES):
            body = understood(_Page, {"items": ((page := await self.get(path, **asked)) or {}).get(key) or []})
            found += body.items
            more = (page or {}).get(cursor)
            if not more:
                return found
            asked[parameter] = str(more)
        raise ResourceUnavailable(f"{self.name} did not answer with a list that ends; try again later.")

    async def change(self, path: str, body: Any, method: str = "PATCH", **params: str) -> Any:
        """Have something be as the body says, however often it is said; None where it is not there."""
        return await self._done(self.call(path, method, body, params))

    async def rest(self, path: str, body: Any) -> None:
        """Have machines stop before they are deleted; a refusal is no reason to leave them, so it is passed over."""
        with suppress(InvalidConfig, InsufficientCredits, NoCapacity):
            await self.change(path, body)

    async def make(self, path: str, body: Any, method: str = "POST", **params: str) -> Any:
        """
        Create something, and return what the platform says of it; None where its name is taken.

        Raises ``ResourceUnavailable`` where the answer was lost: whoever asks again looks first.
        """
        try:
            answer = await wire.create(self.call(path, method, body, params), self.patience, self.create_seconds)
        except Unclear:
            raise ResourceUnavailable(
                f"{self.name} did not say whether it has done what it was asked; what it made is found by its name."
            ) from None
        if answer.status == 409:
            return None
        if answer.status >= 300:
            raise self.error(answer)
        return _object(answer)

    def call(self, path: str, method: str = "GET", body: Any = None, params: Mapping[str, str] | None = None) -> Call:
        """Return a request with the account's key."""
        headers = {"Authorization": f"Bearer {self.account.get('api_key')}", "Accept": "application/json"}
        return Call((self.base or self.account.url) + path, method, params or {}, headers | dict(self.headers), body)

    def error(self, answer: Answer) -> StudioError:
        """Return what a refusal means; the platform's words are in it, without the account's secrets."""
        text = self._words(answer)
        match answer.status:
            case 401 | 403 if not _NO_ROOM.search(text):
                return wire.refused(self.name, self.platform, answer.status)
            case 402 | 412 if answer.status == 402 or _NO_CREDIT.search(text):
                return InsufficientCredits(
                    f"The account at {self.name} cannot pay for a deployment: top it up, then deploy again.",
                    platform=self.platform,
                )
            case 429:
                return wire.too_often(answer)
            case 400 | 403 | 409 | 412 | 422 if _NO_ROOM.search(text):
                return NoCapacity(f"{self.name} has no room for it at the moment: {text}")
            case 400 | 404 | 412 | 422:
                field = next((name for pattern, name in _FIELDS if pattern.search(text)), "adapter_id")
                return InvalidConfig(f"{field}: {self.name} refuses it: {text}", field=field, issue=text)
            case status:
                return ResourceUnavailable(f"{self.name} answered {status}; try again in a moment. {text}".strip())

    def not_shown(self, name: str) -> ResourceUnavailable:
        """Return the error of a name that is taken, by nothing that the account can see."""
        return ResourceUnavailable(
            f"{self.name} says that {name} is taken, and does not show by what (yet); try again in a moment."
        )

    @property
    def name(self) -> str:
        """What users call the platform."""
        return VENDORS[self.platform].display_name

    async def _done(self, call: Call) -> Any:
        answer = await wire.read(call, self.patience)
        if answer.status == 404:
            return None
        if answer.status >= 300:
            raise self.error(answer)
        return _object(answer)

    def _words(self, answer: Answer) -> str:
        body: Any = answer.body if isinstance(answer.body, dict) else {}
        said: Any = body.get("error") or body.get("detail") or body.get("message") or ""
        return wire.words(said.get("message", "") if isinstance(said, dict) else said, self.account)


def replicas_of(config: DeploymentConfig) -> tuple[int, int]:
    """Return the least and the most replicas that are wanted: of one that does not scale, as many as the least."""
    return config.min_replicas, config.max_replicas if config.auto_scaling else max(config.min_replicas, 1)


def understood(shape: type[Shape], body: Any) -> Shape:
    """Read what a platform shows; raises ``ResourceUnavailable`` where it is something else."""
    try:
        return shape.model_validate(body)
    except ValidationError:
        raise _something_else() from None


def named(listed: Any) -> list[dict[str, Any]]:
    """Return the rows of a list that a platform shows, each of which has a name; raises ``ResourceUnavailable``."""
    understood(_Rows, {"rows": listed or []})
    return listed or []


def _object(answer: Answer) -> dict[str, Any]:
    """Return an answer's JSON object, an empty one where it says nothing; raises ``ResourceUnavailable``."""
    if answer.body is not None and not isinstance(answer.body, dict):
        raise _something_else()
    return cast(dict[str, Any], answer.body or {})


def _something_else() -> ResourceUnavailable:
    return ResourceUnavailable(
        "What answered is not the platform's API as it is known; check the address of the platform."
    )


def refused(field: str, issue: str) -> InvalidConfig:
    """Return the error of a field that a platform cannot honour."""
    return InvalidConfig.of(field, issue)
