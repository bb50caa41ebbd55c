"""
Predibase: a deployment of one's own of a base model on LoRAX, which takes the adapter from a repository there.

Legacy: whether the service still answers is not known. The wire contract is that of its last library (predibase
2025.10.3); nothing newer was found.
"""

from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, Field

from infra.hosts.base import Hosted, Limits, Wanted
from infra.hosts.control import ControlPlane, named, replicas_of, understood
from infra.hosts.openai_door import OpenAIDoor
from infra.hosts.openai_host import OpenAIHost
from infra.hosts.sending import FILES, send
from infra.providers import wire
from infra.providers.base import Account
from peft_studio.deployments import DeploymentStatus
from peft_studio.errors import ResourceUnavailable

PLATFORM = "predibase"
_NAME = "Predibase"
_VERSION = 1  # of the adapter in its repository, which is made for it alone
_MOST_REPLICAS = 1000  # nothing is written: the account's quota is what counts
_REST_AFTER = 900  # seconds
_REPOSITORIES = "10000"  # the list has a limit and no pages
_STATES = {
    "ready": DeploymentStatus.RUNNING,
    "standby": DeploymentStatus.RUNNING,  # it wakes up when it is asked
    "stopped": DeploymentStatus.STOPPED,
    "deleted": DeploymentStatus.STOPPED,
    "failed": DeploymentStatus.FAILED,
}


class _Model(BaseModel):
    name: str


class _Deployment(BaseModel):
    name: str
    status: str
    replicas: int | None = Field(default=None, alias="currentReplicas")
    model: _Model | None = None


class _Repositories(BaseModel):
    repos: list[dict[str, Any]] = []


class _Tenant(BaseModel):
    code: str = Field(default="", alias="shortCode")


class _User(BaseModel):
    tenant: _Tenant | None = None


class _Upload(BaseModel):
    urls: dict[str, str] = Field(alias="presignedUrls")
    token: str = Field(alias="uploadToken")
    headers: dict[str, str] = Field(default={}, alias="requiredHeaders")


class Predibase(OpenAIHost):
    """One tenant, the key's."""

    limits = Limits(replicas=_MOST_REPLICAS, rests=True, scales=True, instance_types=True, bills=True)

    def __init__(
        self,
        account: Account,
        patience: float = wire.PATIENCE_SECONDS,
        create_seconds: float = wire.CREATE_SECONDS,
    ):
        super().__init__(OpenAIDoor(PLATFORM, account))
        self._api = ControlPlane(PLATFORM, account, "", patience, create_seconds)
        self._account = account
        self._tenant = ""

    def check(self, wanted: Wanted) -> None:
        """Nothing is written of what Predibase does not take; it has the last word."""

    async def deploy(self, wanted: Wanted) -> Hosted:
        """Send the adapter's files into a repository of its own, and create the deployment; see ``Host.deploy``."""
        await self._uploaded(wanted)
        if (known := await self._machines(wanted.name)) is None:
            least, most = replicas_of(wanted.config)
            config: dict[str, Any] = {"baseModel": wanted.base_model, "minReplicas": least, "maxReplicas": most}
            config |= {} if least else {"cooldownTime": _REST_AFTER}
            config |= {"accelerator": wanted.config.instance_type} if wanted.config.instance_type else {}
            body = {"name": wanted.name, "description": "PEFT Studio", "config": config}
            await self._api.make("/v2/deployments", body)
            known = await self._machines(wanted.name)
        if known is None:
            raise self._api.not_shown(wanted.name)
        return await self._hosted(wanted.name, known)

    async def look(self, name: str) -> Hosted | None:
        """Return a deployment as it is now."""
        machines = await self._machines(name)
        if machines is None and await self._api.get(f"/v2/repos/{name}") is None:
            return None
        return await self._hosted(name, machines)

    async def names(self) -> list[str]:
        """Return the names of all deployments and of all repositories of adapters."""
        deployments = named(_data(await self._api.get("/v2/deployments")))
        repositories = _data(await self._api.get("/v2/repos", limit=_REPOSITORIES)) or {}
        there = [*deployments, *named(understood(_Repositories, repositories).repos)]
        return list(dict.fromkeys(str(one["name"]) for one in there if one.get("status") != "deleted"))

    async def remove(self, name: str) -> None:
        """Delete the deployment, then the repository with the adapter."""
        if await self._api.delete(f"/v2/deployments/{name}"):
            await self._api.delete(f"/v2/repos/{name}")

    def headers(self) -> dict[str, str]:
        """Return the account's key."""
        return {"Authorization": f"Bearer {self._account.get('api_key')}"}

    async def _uploaded(self, wanted: Wanted) -> None:
        """Have the adapter be the first version in its repository; one that has not arrived whole is none."""
        version = f"/v2/repos/{wanted.name}/version/{_VERSION}"
        if await self._api.get(version) is not None:
            return
        repository = {"name": wanted.name, "description": "PEFT Studio", "existsOk": True}
        if await self._api.make("/v2/repos", repository) is None:
            raise self._api.not_shown(wanted.name)
        begun = understood(_Upload, await self._api.make("/v2/adapters/upload", {"repo": wanted.name}) or {})
        for file in FILES:
            if file not in begun.urls:
                raise ResourceUnavailable(f"Predibase did not say where {file} is to be sent; try again later.")
            await send(wanted.folder / file, begun.urls[file], _NAME, begun.headers)
        await self._api.make("/v2/adapters/upload/", {"uploadToken": begun.token}, "PUT")
        if await self._api.get(version) is None:
            raise self._api.not_shown(wanted.name)

    async def _machines(self, name: str) -> _Deployment | None:
        shown = _data(await self._api.get(f"/v2/deployments/{name}"))
        machines = understood(_Deployment, shown) if shown is not None else None
        return None if machines is None or machines.status == "deleted" else machines

    async def _hosted(self, name: str, machines: _Deployment | None) -> Hosted:
        if machines is None:
            reason = "The adapter is there, without machines (yet)."
            return Hosted(name=name, status=DeploymentStatus.DEPLOYING, reason=reason)
        return Hosted(
            name=name,
            status=_STATES.get(machines.status, DeploymentStatus.DEPLOYING),
            endpoint=f"{_serving(self._account.url)}/{await self._of()}/deployments/v2/llms/{name}/v1",
            model=f"{name}/{_VERSION}",
            base=machines.model.name if machines.model else None,
            reason=machines.status,
            replicas=machines.replicas,
        )

    async def _of(self) -> str:
        """Return the short name of the key's tenant, which is part of every deployment's address."""
        if not self._tenant:
            user = understood(_User, _data(await self._api.get("/v1/users/current")) or {})
            self._tenant = user.tenant.code if user.tenant else ""
        if not self._tenant:
            raise ResourceUnavailable("Predibase does not say whose the key is; try again later.")
        return self._tenant


def _data(body: Any) -> Any:
    """Return what an answer holds; some are wrapped."""
    return body["data"] if isinstance(body, dict) and "data" in body else cast(Any, body)


def _serving(url: str) -> str:
    """Return where deployments answer: beside the API, on a host of its own."""
    parts = urlsplit(url)
    if not parts.netloc.startswith("api."):
        return url
    return urlunsplit(parts._replace(netloc=f"serving.{parts.netloc.removeprefix('api.')}"))
