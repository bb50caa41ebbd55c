"""Carries files between a rented machine and the studio; whoever is away for a while is asked again."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx
from pydantic import ValidationError

from peft_studio.errors import StudioError, Unreachable
from peft_studio.remote.assignment import CLAIMANT, Assignment, InputFile, Orders

TIMEOUT = httpx.Timeout(30.0, read=60.0, write=300.0)
PATIENCE_SECONDS = 300.0
_LONGEST_PAUSE_SECONDS = 10.0
_CHUNK_BYTES = 1 << 20
_OVER = (401, 403, 404, 409, 410)  # it will be the same the next time


class Dismissed(StudioError):
    """The studio does not want this machine (any more)."""


class Courier:
    """One machine's way to the studio, or to the bucket that both use. Threads may share it."""

    def __init__(self, client: httpx.Client, assignment: Assignment):
        self._client = client
        self._assignment = assignment
        self._own = httpx.URL(assignment.upload.url)
        self.heard_at = time.monotonic()  # when something last got through

    def fetch(self, file: InputFile, folder: Path) -> None:
        """Fetch a file, unless it is there; raises ``Unreachable`` or ``Dismissed``."""
        target = folder / file.path
        if target.is_file() and target.stat().st_size == file.size:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.part")

        def download() -> httpx.Response:
            with self._client.stream("GET", file.url, headers=self._headers(file.url)) as response:
                if response.status_code == 200:
                    with temporary.open("wb") as out:
                        for part in response.iter_bytes(_CHUNK_BYTES):
                            out.write(part)
                    if temporary.stat().st_size != file.size:
                        raise httpx.ReadError(f"{file.path} came with another size.")
                return response

        self._insist(download)
        temporary.replace(target)

    def send(self, path: str, content: bytes | Path, patience: float = PATIENCE_SECONDS) -> None:
        """Send a file to its place, in the stead of what is there; raises ``Unreachable`` or ``Dismissed``."""
        self._insist(lambda: self._send(path, content), patience)

    def orders(self) -> Orders | None:
        """Return what the studio wants now; None where it does not answer."""
        url = self._assignment.orders_url
        try:
            response = self._client.get(url, headers=self._headers(url))
            if _is_final(response):
                raise Dismissed
            orders = Orders.model_validate_json(response.raise_for_status().content)
        except (httpx.HTTPError, ValidationError):
            return None
        self.heard_at = time.monotonic()
        return orders

    def _send(self, path: str, content: bytes | Path) -> httpx.Response:
        upload = self._assignment.upload
        with content.open("rb") if isinstance(content, Path) else _Bytes(content) as body:
            if upload.fields:
                form = {**upload.fields, "key": upload.prefix + path}
                return self._client.post(upload.url, data=form, files={"file": body})
            url = f"{upload.url}/{path}"
            return self._client.put(url, content=body, headers=self._headers(url))

    def _headers(self, url: str) -> dict[str, str]:
        token, there = self._assignment.token, httpx.URL(url)
        ours = (there.scheme, there.host, there.port) == (self._own.scheme, self._own.host, self._own.port)
        return {"Authorization": f"Bearer {token.get_secret_value()}"} if token and ours else {}

    def _insist(self, call: Callable[[], httpx.Response], patience: float = PATIENCE_SECONDS) -> None:
        insist(call, patience)
        self.heard_at = time.monotonic()


def claim(client: httpx.Client, url: str, claimant: str) -> Assignment:
    """Take the machine's work over; raises ``Unreachable``, or ``Dismissed`` where there is none for it."""
    response = insist(lambda: client.get(url, headers={CLAIMANT: claimant}), PATIENCE_SECONDS)
    return Assignment.model_validate_json(response.content)


def insist(call: Callable[[], httpx.Response], patience: float) -> httpx.Response:
    """Call until it works; raises ``Dismissed`` where it never will, ``Unreachable`` once patience has run out."""
    deadline, pause = time.monotonic() + patience, 0.2
    while True:
        try:
            response = call()
            if _is_final(response):
                raise Dismissed(f"It was answered {response.status_code}.")
            if response.is_success:
                return response
            issue = f"It was answered {response.status_code}."
        except httpx.HTTPError as error:
            issue = f"It cannot be reached ({type(error).__name__})."
        if time.monotonic() + pause > deadline:
            raise Unreachable(issue)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _is_final(response: httpx.Response) -> bool:
    """Whether the studio or the bucket says no; a web page is a tunnel's or a proxy's, whose studio is away."""
    return response.status_code in _OVER and not response.headers.get("content-type", "").startswith("text/html")


class _Bytes:
    """Bytes where a file is expected."""

    def __init__(self, content: bytes):
        self._content = content

    def __enter__(self) -> bytes:
        return self._content

    def __exit__(self, *_: object) -> None:
        pass
