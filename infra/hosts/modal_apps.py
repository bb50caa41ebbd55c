"""
Apps of a Modal workspace, through Modal's own library: the seam behind which ``modal`` is a host like others.

Modal has no public HTTP API. The library is an extra (``pip install 'peft-studio[modal]'``) and imported when it is
needed; what it does with Modal's private protocol is not tested here (docs/hosts.md).
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

from infra.providers.base import Account
from peft_studio.errors import CredentialRefused, InvalidConfig, RateLimitExceeded, ResourceUnavailable

PORT = 8000
_FUNCTION = "serve"
_VLLM = "vllm==0.23.0"
_START_SECONDS = 1800
_BUSY_SECONDS = 10
_SECONDS, _BUILD_SECONDS = 30.0, 1200.0  # an image is built when it is first deployed


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


class Apps(Protocol):
    """The apps of one workspace; every method may raise what a ``Host`` may."""

    async def deploy(self, app: App) -> None:
        """Deploy an app; one of that name takes its new shape."""
        ...

    async def url(self, name: str) -> str | None:
        """Return where an app answers; None where there is none of that name."""
        ...

    async def names(self) -> list[str]:
        """Name all that are deployed."""
        ...

    async def stop(self, name: str) -> None:
        """Stop an app for good; silent where it is gone."""
        ...


class ModalApps:
    """The apps that a token opens."""

    def __init__(self, account: Account):
        self._account = account

    async def deploy(self, app: App) -> None:
        """Deploy an app of one function, which starts the command in its container."""
        async with self._client(_BUILD_SECONDS) as (modal, client):
            made = modal.App(app.name)
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
            made.function(**settings)(modal.web_server(PORT, startup_timeout=_START_SECONDS)(serve))
            await made.deploy.aio(client=client)

    async def url(self, name: str) -> str | None:
        """Return where an app answers."""
        async with self._client() as (modal, client):
            try:
                return await modal.Function.from_name(name, _FUNCTION, client=client).get_web_url.aio()
            except modal.exception.NotFoundError:
                return None

    async def names(self) -> list[str]:
        """Name all that are deployed."""
        async with self._client() as (_, client):
            apps = await import_module("modal.experimental").list_deployed_apps.aio(client=client)
            return [str(app.name) for app in apps]

    async def stop(self, name: str) -> None:
        """Stop an app for good."""
        async with self._client() as (modal, client):
            try:
                app = await modal.App.lookup.aio(name, client=client)
                await app.stop.aio(client=client)
            except modal.exception.NotFoundError:
                return

    @asynccontextmanager
    async def _client(self, seconds: float = _SECONDS) -> AsyncGenerator[tuple[Any, Any]]:
        """Yield the library and a client of it, for so long; what the library raises is said in our words."""
        modal = library()
        wrong = modal.exception
        try:
            credentials = self._account.get("token_id"), self._account.get("token_secret")
            async with asyncio.timeout(seconds):
                yield modal, await modal.Client.from_credentials.aio(*credentials)
        except TimeoutError:
            raise ResourceUnavailable(f"Modal did not answer within {seconds:g} seconds; try again later.") from None
        except wrong.AuthError:
            raise CredentialRefused(
                "Modal refused the token: it was revoked or is mistyped. Connect it again "
                "(POST /platforms/modal/connect).",
                platform="modal",
                field="credentials.token_secret",
            ) from None
        except wrong.ResourceExhaustedError:
            raise RateLimitExceeded(
                "Modal is asked too often, or the workspace is at its limit; try again later.",
                retry_after_seconds=_BUSY_SECONDS,
            ) from None
        except wrong.InvalidError as error:
            issue = self._account.without_secrets(" ".join(str(error).split()))[:300]
            field = "instance_type" if "gpu" in issue.lower() else "adapter_id"
            raise InvalidConfig(f"{field}: Modal refuses it: {issue}", field=field, issue=issue) from None
        except wrong.Error as error:
            raise ResourceUnavailable(f"Modal did not do it ({type(error).__name__}); try again later.") from None


def library() -> Any:
    """Return Modal's library; raises ``InvalidConfig`` where it is not installed."""
    try:
        return import_module("modal")
    except ImportError:
        issue = "Modal's library is not installed; run: pip install 'peft-studio[modal]'"
        raise InvalidConfig(f"platform: {issue}", field="platform", issue=issue) from None
