"""
What both clients share: a request described, and an operation made of one or several.

A ``Call`` knows no socket; a ``Procedure`` yields calls (and pauses) and is sent their answers, and so needs no second
version that awaits them. ``operation`` makes a method of either: it returns the answer on a ``Client`` and a coroutine
of the same answer on an ``AsyncClient``, with the same parameters.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass, field
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar, overload
from urllib.parse import quote
from uuid import uuid4

import httpx
from pydantic import BaseModel, TypeAdapter

from peft_studio.client.bodies import Body
from peft_studio.client.downloads import Download

P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how its answer is read."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    query: Mapping[str, Any] = field(default_factory=dict[str, Any])
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: Body | None = None
    into: Download | None = None
    seconds: float | None = None  # how long the answer may take, where that is longer than usual
    repeatable: bool = True

    @property
    def parameters(self) -> dict[str, Any]:
        """The query, without what was not given."""
        return {name: value for name, value in self.query.items() if value is not None}

    @functools.cached_property
    def all_headers(self) -> dict[str, str]:
        """
        The headers, the body's among them.

        Every POST carries a key by which the studio knows a repetition: what was sent twice is done once.
        """
        automatic = {"Idempotency-Key": uuid4().hex} if self.method == "POST" else {}
        of_body = self.body.headers if self.body else {}
        of_file = {"Accept-Encoding": "identity"} if self.into else {}  # so that its size is the one that is promised
        return automatic | of_body | of_file | dict(self.headers)


@dataclass(frozen=True)
class Pause:
    """Some time that a procedure waits."""

    seconds: float


Procedure: TypeAlias = Generator[Call[Any] | Pause, Any, T]


class Blocking(ABC):
    """A client that returns what an operation comes to."""

    @abstractmethod
    def perform(self, operation: Call[T] | Procedure[T]) -> T:
        """Do what an operation describes."""


class Awaited(ABC):
    """A client that returns a coroutine of what an operation comes to."""

    @abstractmethod
    async def perform(self, operation: Call[T] | Procedure[T]) -> T:
        """Do what an operation describes."""


class operation(Generic[P, T]):
    """Make a method of both clients out of a function that describes it."""

    def __init__(self, describe: Callable[Concatenate[Any, P], Call[T] | Procedure[T]]):
        @functools.wraps(describe)
        def perform(client: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
            return client.perform(describe(client, *args, **kwargs))

        self._perform = perform
        self.__doc__ = describe.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Callable[..., Any]: ...
    @overload
    def __get__(self, client: Blocking, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: Awaited, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: Any, owner: type) -> Any:
        return self._perform if client is None else MethodType(self._perform, client)


def model(kind: type[M]) -> Callable[[httpx.Response], M]:
    """Read an answer as a model."""
    return lambda response: kind.model_validate_json(response.content)


def part(name: str, kind: type[T]) -> Callable[[httpx.Response], T]:
    """Read one field of an answer."""
    return lambda response: TypeAdapter(kind).validate_python(response.json()[name])


def path(*parts: str) -> str:
    """Join parts of an address, whatever characters they have."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)
