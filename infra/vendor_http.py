"""Asking an outside service over HTTP: bounded in time, tried again where that may help, silent about secrets."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import httpx

from peft_studio.errors import InvalidConfig, ResourceUnavailable

TIMEOUT_SECONDS = 10.0
_AGAIN_SECONDS = 0.3
_PASSING = (502, 503, 504)
_MAX_BYTES = 32 << 20


@dataclass(frozen=True)
class Call:
    """One request; ``repr`` does not show the headers, which carry keys."""

    url: str
    method: str = "GET"
    params: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    body: Any = field(default=None, repr=False)
    tls: ssl.SSLContext | bool = True


@dataclass(frozen=True)
class Answer:
    """What came back; ``body`` is None where it was no JSON."""

    status: int
    body: Any
    headers: httpx.Headers
    content: bytes = field(default=b"", repr=False)

    @property
    def retry_after(self) -> int | None:
        """The seconds the service asks to wait, where it says so in whole seconds."""
        said = self.headers.get("Retry-After", "")
        return min(int(said), 86_400) if said.isascii() and said.isdigit() else None


async def ask(call: Call, seconds: float = TIMEOUT_SECONDS, *, again: bool = True) -> Answer:
    """
    Send a request; raises ``ResourceUnavailable`` where no answer comes in time.

    Tried twice where the connection broke or a gateway failed, unless that would do harm (``again`` false).
    Redirects are not followed: a key must not travel to another host. What the service wrote is never put into an
    error, since some repeat the key they refuse.
    """
    host = urlsplit(call.url).netloc
    try:
        async with (
            asyncio.timeout(seconds),
            httpx.AsyncClient(
                verify=usual_trust() if call.tls is True else call.tls, timeout=seconds, follow_redirects=False
            ) as client,
        ):
            try:
                answer = await _send(client, call)
            except httpx.TransportError:
                if not again:
                    raise
                answer = None
            if answer is None or (again and answer.status in _PASSING and answer.retry_after is None):
                await asyncio.sleep(_AGAIN_SECONDS)
                answer = await _send(client, call)
            return answer
    except (TimeoutError, httpx.TimeoutException):
        raise ResourceUnavailable(f"{host} did not answer within {seconds:g} seconds; try again later.") from None
    except (httpx.TransportError, httpx.InvalidURL, OSError) as error:
        raise ResourceUnavailable(f"{host} cannot be reached ({type(error).__name__}); try again later.") from None


@cache
def usual_trust() -> ssl.SSLContext:
    """Return the usual authorities, read once: reading them takes longer than most answers."""
    return httpx.create_ssl_context()


def trusting(certificates: str) -> ssl.SSLContext | bool:
    """Trust the authorities in a ``ca_certificate`` (PEM), or the usual ones where it is empty."""
    if not certificates:
        return True
    try:
        return ssl.create_default_context(cadata=certificates)
    except ssl.SSLError:
        field = "credentials.ca_certificate"
        raise InvalidConfig(f"{field}: must be certificates in PEM", field=field, issue="Must be PEM") from None


async def _send(client: httpx.AsyncClient, call: Call) -> Answer:
    request = client.build_request(
        call.method, call.url, params=dict(call.params) or None, headers=dict(call.headers), json=call.body
    )
    return await read_answer(await client.send(request, stream=True))


async def read_answer(response: httpx.Response) -> Answer:
    """Read a response to its end, and close it; one that is too long raises ``httpx.ReadError``."""
    try:
        content = bytearray()
        async for part in response.aiter_bytes():
            content += part
            if len(content) > _MAX_BYTES:
                raise httpx.ReadError("The answer is too long.")
    finally:
        await response.aclose()
    return Answer(response.status_code, _json(bytes(content), response), response.headers, bytes(content))


def _json(content: bytes, response: httpx.Response) -> Any:
    try:
        return httpx.Response(response.status_code, content=content).json()
    except (ValueError, RecursionError):
        return None
