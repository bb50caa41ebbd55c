"""
Apps of a Modal workspace, through Modal's own library: what ``modal`` asks of it.

Modal has no public HTTP API. The library is an extra (``pip install 'peft-studio[modal]'``) and imported when it is
needed; it is tested as it is, against a simulator that speaks its private protocol (docs/hosts.md).
"""

import asyncio
import logging
import re
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar

from infra.providers.base import Account
from infra.providers.wire import PATIENCE_SECONDS, words
from peft_studio.errors import (
    CredentialRefused,
    InsufficientCredits,
    InvalidConfig,
    RateLimitExceeded,
    ResourceUnavailable,
)

PORT = 8000
_FUNCTION = "serve"
_VLLM = "vllm==0.23.0"
_START_SECONDS = 1800
_AT_ONCE = 100  # requests to one container: without a number Modal starts another one for each, and vLLM batches them
_BUSY_SECONDS = 10
_PAUSE_SECONDS = 0.5
_NO_CREDIT = re.compile(r"spend|billing|budget|credit|payment", re.I)
_SECONDS, _BUILD_SECONDS = 30.0, 1200.0  # an image is built when it is first deployed
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class App:
    """A server that is to run: its command, its machine and its numbers; ``repr`` does not show its secrets."""

    name: str
    command: Sequence[str]
    gpu: str
    least: int
    most: int
    rest_after: int  # seconds
    secrets: Mapping[str, str] = field(repr=False)


class ModalApps:
    """
    The apps that a token opens.

    What Modal is asked too often is asked again while there is ``patience``; everything but a deployment has to be
    answered within ``seconds``.
    """

    def __init__(
        self,
        account: Account,
        patience: float = PATIENCE_SECONDS,
        deploy_seconds: float = _BUILD_SECONDS,
        seconds: float = _SECONDS,
    ):
        self._account = account
        self._patience = patience
        self._deploy_seconds = deploy_seconds
        self._seconds = seconds

    async def deploy(self, app: App) -> None:
        """Deploy an app of one function, which starts the command in its container."""

        async def deploying(modal: Any, client: Any) -> None:
            made = modal.App(app.name, include_source=False)
            image = modal.Image.debian_slim(python_version=f"{sys.version_info[0]}.{sys.version_info[1]}")
            command = list(app.command)

            def serve() -> None:
                import subprocess

                subprocess.Popen(command)

            settings = {
                "image": image.pip_install(_VLLM, "huggingface_hub"),
                "gpu": app.gpu,
                "secrets": [modal.Secret.from_dict(dict(app.secrets))],
                "min_containers": app.least,
                "max_containers": app.most,
                "scaledown_window": app.rest_after,
                "timeout": _START_SECONDS,
                "serialized": True,
                "name": _FUNCTION,
            }
            server = modal.web_server(PORT, startup_timeout=_START_SECONDS)(serve)
            made.function(**settings)(modal.concurrent(max_inputs=_AT_ONCE)(server))
            await made.deploy.aio(client=client)

        await self._asked(deploying, self._deploy_seconds)

    async def url(self, name: str) -> str | None:
        """Return where an app answers; None where there is none of that name."""

        async def asking(modal: Any, client: Any) -> str | None:
            try:
                return await modal.Function.from_name(name, _FUNCTION, client=client).get_web_url.aio()
            except modal.exception.NotFoundError:
                return None

        return await self._asked(asking)

    async def names(self) -> list[str]:
        """Name all that are deployed."""

        async def asking(_: Any, client: Any) -> list[str]:
            apps = await import_module("modal.experimental").list_deployed_apps.aio(client=client)
            return [str(app.name) for app in apps]

        return await self._asked(asking)

    async def stop(self, name: str) -> None:
        """Stop an app for good; silent where it is gone."""

        async def stopping(modal: Any, client: Any) -> None:
            try:
                app = await modal.App.lookup.aio(name, client=client)
                await app.stop.aio(client=client)
            except modal.exception.NotFoundError:
                return

        await self._asked(stopping)

    async def _asked(self, do: Callable[[Any, Any], Awaitable[Answer]], seconds: float | None = None) -> Answer:
        deadline, pause = time.monotonic() + self._patience, _PAUSE_SECONDS
        while True:
            try:
                async with self._client(seconds or self._seconds) as (modal, client):
                    return await do(modal, client)
            except RateLimitExceeded:
                if time.monotonic() + pause > deadline:
                    raise
            await asyncio.sleep(pause)
            pause *= 2

    @asynccontextmanager
    async def _client(self, seconds: float) -> AsyncGenerator[tuple[Any, Any]]:
        """Yield the library and a client of it, for so long; what the library raises is said in our words."""
        modal = await asyncio.to_thread(library)  # importing it takes seconds the first time
        wrong = modal.exception
        try:
            async with asyncio.timeout(seconds), self._connected(modal) as client:
                yield modal, client
        except TimeoutError:
            raise ResourceUnavailable(f"Modal did not answer within {seconds:g} seconds; try again later.") from None
        except (wrong.AuthError, wrong.PermissionDeniedError):
            raise CredentialRefused(
                "Modal refused the token: it was revoked, is mistyped or may not do this. Connect it again "
                "(POST /platforms/modal/connect).",
                platform="modal",
                field="credentials.token_secret",
            ) from None
        except wrong.ResourceExhaustedError as error:
            if _NO_CREDIT.search(str(error)):
                raise InsufficientCredits(
                    "The workspace at Modal has spent what it may: raise its limit, then try again.", platform="modal"
                ) from None
            raise RateLimitExceeded(
                "Modal is asked too often, or the workspace is at its limit; try again later.",
                retry_after_seconds=_BUSY_SECONDS,
            ) from None
        except wrong.InvalidError as error:
            issue = words(error, self._account)
            field = "instance_type" if "gpu" in issue.lower() else "adapter_id"
            raise InvalidConfig(f"{field}: Modal refuses it: {issue}", field=field, issue=issue) from None
        except (wrong.Error, OSError, *_unreadable()) as error:
            said = words(error, self._account) or type(error).__name__
            raise ResourceUnavailable(f"Modal did not do it; try again later. {said}") from None

    def _connected(self, modal: Any) -> Any:
        """Return a client of this account alone: the library's usual one is of whoever the process runs for."""
        server = self._account.url or modal.config.config["server_url"]
        kind = import_module("modal_proto.api_pb2").CLIENT_TYPE_CLIENT
        return modal.Client(server, kind, (self._account.get("token_id"), self._account.get("token_secret")))


def _unreadable() -> tuple[type[Exception], ...]:
    """Return what the library passes on unsaid: a line that broke, and something else than Modal that answers."""
    broken = import_module("grpclib.exceptions").StreamTerminatedError
    return broken, import_module("google.protobuf.message").DecodeError, AssertionError, NotImplementedError


def library() -> Any:
    """Return Modal's library; raises ``InvalidConfig`` where it is not installed."""
    logging.getLogger("hpack").setLevel(logging.INFO)  # below that it logs headers, and the token is one
    try:
        return import_module("modal")
    except ImportError:
        issue = "Modal's library is not installed; run: pip install 'peft-studio[modal]'"
        raise InvalidConfig(f"platform: {issue}", field="platform", issue=issue) from None
