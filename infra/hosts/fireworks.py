"""
Fireworks AI: a deployment of one's own of a base model, with the adapter loaded into it.

The wire contract is that of its library (fireworks-ai 1.2). A LoRA needs a dedicated deployment: serverless ones do not
take it (``LoraLoadParams.serverless``).
"""

import asyncio
import re
import time
from typing import Any

from pydantic import BaseModel, Field

from infra.hosts.base import Hosted, Limits, Wanted
from infra.hosts.control import ControlPlane, named, refused, replicas_of, understood
from infra.hosts.fireworks_metrics import fireworks_metrics
from infra.hosts.openai_door import OpenAIDoor
from infra.hosts.openai_host import OpenAIHost
from infra.hosts.sending import send, sizes
from infra.providers import wire
from infra.providers.base import Account
from peft_studio.deployments import DeploymentMetrics, DeploymentStatus
from peft_studio.errors import ResourceUnavailable

PLATFORM = "fireworks"
_NAME = "Fireworks"
_RANKS = (4, 64)
_MOST_REPLICAS = 1000  # nothing is written: the account's quota is what counts
_PAGE = {"pageSize": "200"}
_CURSOR = ("nextPageToken", "pageToken")
_READY_SECONDS = 600.0  # for an adapter whose files have all arrived
_REST_AFTER = "900s"
_OVER = ("DELETED", "DELETING")
_MACHINE = re.compile(r"(?:(\d+)x_)?([A-Z][A-Z0-9_]+)")


class _Model(BaseModel):
    name: str
    state: str = ""


class _BaseModel(_Model):
    url: str = Field(default="", alias="huggingFaceUrl")
    takes_adapters: bool = Field(default=False, alias="supportsLora")


class _Words(BaseModel):
    message: str = ""


class _Stats(BaseModel):
    ready: int | None = Field(default=None, alias="readyReplicaCount")


class _Deployment(_Model):
    base: str = Field(alias="baseModel")
    replicas: int | None = Field(default=None, alias="replicaCount")
    stats: _Stats = Field(default=_Stats(), alias="replicaStats")
    status: _Words = _Words()


class _Deployed(_Model):
    model: str = ""
    deployment: str = ""
    status: _Words = _Words()


class Fireworks(OpenAIHost):
    """One account; ``account`` names it where a key opens several."""

    limits = Limits(replicas=_MOST_REPLICAS, rests=True, scales=True, instance_types=True, bills=True)

    def __init__(
        self,
        account: Account,
        patience: float = wire.PATIENCE_SECONDS,
        create_seconds: float = wire.CREATE_SECONDS,
        pace_seconds: float = 2.0,
    ):
        super().__init__(OpenAIDoor(PLATFORM, account))
        self._api = ControlPlane(PLATFORM, account, "", patience, create_seconds)
        self._account = account
        self._pace = pace_seconds
        self._owner = ""

    def check(self, wanted: Wanted) -> None:
        """Refuse ranks that Fireworks does not have, and machines that are not named as it names them."""
        if not _RANKS[0] <= wanted.rank <= _RANKS[1]:
            raise refused("adapter_id", f"Fireworks takes ranks from {_RANKS[0]} to {_RANKS[1]}, not {wanted.rank}")
        if wanted.config.instance_type and not _MACHINE.fullmatch(wanted.config.instance_type):
            raise refused("instance_type", "Fireworks names machines like NVIDIA_H100_80GB, or 2x_NVIDIA_H100_80GB")

    async def deploy(self, wanted: Wanted) -> Hosted:
        """Send the adapter's files, create the deployment, load the one into the other; see ``Host.deploy``."""
        self.check(wanted)
        base, name, root = await self._base(wanted.base_model), wanted.name, await self._root()
        await self._uploaded(wanted, base)
        if await self._api.get(f"{root}/deployments/{name}") is None:
            made = await self._api.make(f"{root}/deployments", _machines(wanted, base), deploymentId=name)
            if made is None and await self._api.get(f"{root}/deployments/{name}") is None:
                raise self._api.not_shown(name)
        if not await self._deployed(name):
            body = {"model": await self._at("models", name), "deployment": await self._at("deployments", name)}
            await self._api.make(f"{root}/deployedModels", body)
        if (hosted := await self.look(name)) is None:
            raise self._api.not_shown(name)
        return hosted

    async def look(self, name: str) -> Hosted | None:
        """Return a deployment as it is now; it runs when the machines do and have loaded the adapter."""
        root = await self._root()
        shown = await self._api.get(f"{root}/deployments/{name}")
        machines = understood(_Deployment, shown) if shown is not None else None
        if machines is None or machines.state == "DELETED":
            left = await self._api.get(f"{root}/models/{name}")
            reason = "The adapter is there, without machines (yet)."
            return None if left is None else Hosted(name=name, status=DeploymentStatus.DEPLOYING, reason=reason)
        loaded = await self._deployed(name)
        place = await self._at("deployments", name)
        return Hosted(
            name=name,
            status=_status(machines, loaded),
            endpoint=f"{self._account.url}/inference/v1",
            model=f"{await self._at('models', name)}#{place}",
            base=f"{machines.base}#{place}",
            reason=wire.words(_reason(machines, loaded), self._account),
            replicas=machines.stats.ready if machines.stats.ready is not None else machines.replicas,
        )

    async def names(self) -> list[str]:
        """Return the names of all deployments, and of the adapters that were uploaded."""
        root, asked = await self._root(), dict(_PAGE)
        deployments = await self._api.pages(f"{root}/deployments", "deployments", *_CURSOR, **asked)
        models = await self._api.pages(f"{root}/models", "models", *_CURSOR, **asked)
        there = [one for one in deployments if one.get("state") != "DELETED"]
        there += [one for one in models if one.get("kind") == "HF_PEFT_ADDON"]
        return list(dict.fromkeys(str(one["name"]).rpartition("/")[2] for one in named(there)))

    async def remove(self, name: str) -> None:
        """Unload the adapter, delete the machines and then the adapter; what is in use yet, the next call deletes."""
        root = await self._root()
        for one in await self._deployed(name):
            await self._api.delete(f"{root}/deployedModels/{one.name.rpartition('/')[2]}")
        # Machines that were asked in the last hour are not deleted unless that is to be ignored.
        if await self._api.delete(f"{root}/deployments/{name}", ignoreChecks="true", hard="true"):
            await self._api.delete(f"{root}/models/{name}")

    def headers(self) -> dict[str, str]:
        """Return the account's key."""
        return {"Authorization": f"Bearer {self._account.get('api_key')}"}

    async def metrics(self, hosted: Hosted) -> DeploymentMetrics | None:
        """Return how busy it is by the account's page of metrics, which is made anew every half minute."""
        url = f"{self._account.url}{await self._root()}/metrics"
        return await fireworks_metrics(url, self.headers(), hosted.name)

    async def _uploaded(self, wanted: Wanted, base: str) -> None:
        """Have the adapter lie at Fireworks, whole; files that were sent before are sent over."""
        path = f"{await self._root()}/models/{wanted.name}"
        shown = await self._api.get(path)
        if shown is None:
            details = {"baseModel": base, "r": wanted.rank, "targetModules": list(wanted.target_modules)}
            body = {"modelId": wanted.name, "model": {"kind": "HF_PEFT_ADDON", "peftDetails": details}}
            made = await self._api.make(f"{await self._root()}/models", body)
            shown = made if made is not None else await self._api.get(path)
            if shown is None:
                raise self._api.not_shown(wanted.name)
        if understood(_Model, shown).state == "READY":
            return
        asked = {"filenameToSize": {name: str(size) for name, size in sizes(wanted.folder).items()}}
        urls = (await self._api.change(f"{path}:getUploadEndpoint", asked, "POST") or {}).get(
            "filenameToSignedUrls"
        ) or {}
        for name, url in urls.items():
            if name in asked["filenameToSize"]:
                await send(wanted.folder / name, url, _NAME)
        await self._api.get(f"{path}:validateUpload")
        deadline = time.monotonic() + _READY_SECONDS
        while understood(_Model, await self._api.get(path) or {}).state != "READY":
            if time.monotonic() > deadline:
                raise ResourceUnavailable("Fireworks has not taken the adapter within ten minutes; try again later.")
            await asyncio.sleep(self._pace)

    async def _base(self, base_model: str) -> str:
        """Return Fireworks' name of a base model that takes adapters."""
        shown = await self._api.pages("/v1/accounts/fireworks/models", "models", *_CURSOR, **_PAGE)
        for one in (understood(_BaseModel, model) for model in shown):
            if one.takes_adapters and one.url.lower().rstrip("/").endswith(f"/{base_model.lower()}"):
                return one.name
        raise refused("adapter_id", f"Fireworks has no {base_model} that takes adapters")

    async def _deployed(self, name: str) -> list[_Deployed]:
        """Return where the adapter is loaded, or is being loaded."""
        model = await self._at("models", name)
        shown = await self._api.pages(f"{await self._root()}/deployedModels", "deployedModels", *_CURSOR, **_PAGE)
        return [one for one in (understood(_Deployed, row) for row in shown) if one.model == model]

    async def _at(self, kind: str, name: str) -> str:
        return f"{(await self._root()).removeprefix('/v1/')}/{kind}/{name}"

    async def _root(self) -> str:
        if not self._owner:
            chosen = self._account.get("account").removeprefix("accounts/")
            listed = [] if chosen else named(await self._api.pages("/v1/accounts", "accounts", *_CURSOR, **_PAGE))
            names = [chosen] if chosen else [str(one["name"]).removeprefix("accounts/") for one in listed]
            if len(names) != 1:
                known = ", ".join(names) or "no account"
                raise refused("platform", f"The key opens {known} at Fireworks; connect it with 'account', one of them")
            self._owner = names[0]
        return f"/v1/accounts/{self._owner}"


def _machines(wanted: Wanted, base: str) -> dict[str, Any]:
    least, most = replicas_of(wanted.config)
    body: dict[str, Any] = {
        "baseModel": base,
        "displayName": wanted.name,
        "minReplicaCount": least,
        "maxReplicaCount": most,
        "enableAddons": True,
    }
    if least == 0:
        body["autoscalingPolicy"] = {"scaleToZeroWindow": _REST_AFTER}
    if named := _MACHINE.fullmatch(wanted.config.instance_type or ""):
        body |= {"acceleratorType": named[2]} | ({"acceleratorCount": int(named[1])} if named[1] else {})
    return body


def _status(machines: _Deployment, loaded: list[_Deployed]) -> DeploymentStatus:
    if machines.state == "FAILED":
        return DeploymentStatus.FAILED
    if machines.state in _OVER:
        return DeploymentStatus.STOPPED
    if machines.state in ("READY", "UPDATING") and any(one.state == "DEPLOYED" for one in loaded):
        return DeploymentStatus.RUNNING
    return DeploymentStatus.DEPLOYING


def _reason(machines: _Deployment, loaded: list[_Deployed]) -> str:
    said = [machines.status.message, *(one.status.message for one in loaded)]
    return next((words for words in said if words), machines.state)
