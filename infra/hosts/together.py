"""
Together AI: an endpoint of one's own with one deployment, through version 2 of its API.

The wire contract is that of its library (together 3.1). An adapter that was uploaded is deployed as a model of its own,
merged into its base when the deployment starts: attaching several to one base is for adapters trained there only
(https://docs.together.ai/docs/post-training/multi-lora-deployment).
"""

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel, Field

from infra.hosts.base import Hosted, Limits, Wanted
from infra.hosts.control import ControlPlane, named, refused, replicas_of, understood
from infra.hosts.openai_door import OpenAIDoor
from infra.hosts.openai_host import OpenAIHost
from infra.providers import wire
from infra.providers.base import Account
from peft_studio.deployments import DeploymentMetrics, DeploymentStatus, MeasuredBy
from peft_studio.effect import TOP
from peft_studio.errors import InvalidConfig, ResourceUnavailable

PLATFORM = "together"
_PAGE = {"limit": "100"}
_LIST = ("data", "next_cursor", "after")
_UPLOAD_SECONDS = 1800.0
_MOST_REPLICAS = 1000  # nothing is written: the account's quota is what counts
_ARRIVING = ("REMOTE_UPLOAD_STATUS_PENDING", "REMOTE_UPLOAD_STATUS_RUNNING")
_ARRIVED = "REMOTE_UPLOAD_STATUS_SUCCEEDED"
_STATES = {
    "DEPLOYMENT_STATE_READY": DeploymentStatus.RUNNING,
    "DEPLOYMENT_STATE_SCALING": DeploymentStatus.RUNNING,
    "DEPLOYMENT_STATE_DEGRADED": DeploymentStatus.RUNNING,
    "DEPLOYMENT_STATE_FAILED": DeploymentStatus.FAILED,
    "DEPLOYMENT_STATE_STOPPED": DeploymentStatus.STOPPED,
    "DEPLOYMENT_STATE_STOPPING": DeploymentStatus.STOPPED,
}


class _Named(BaseModel):
    id: str
    name: str


class _Project(_Named):
    slug: str


class _Profile(BaseModel):
    config: str
    gpu_type: str = Field(alias="gpuType")
    gpu_count: int = Field(alias="gpuCount")
    adapter_mode: str | None = Field(default=None, alias="adapterMode")

    @property
    def instance_type(self) -> str:
        """What users name it by, such as 1x_nvidia_h100_80gb."""
        return f"{self.gpu_count}x_{self.gpu_type}"


class _Base(BaseModel):
    name: str
    base_model: str = Field(alias="baseModel")
    base_model_id: str = Field(alias="baseModelId")
    profiles: list[_Profile] = Field(alias="deploymentProfiles")


class _Upload(BaseModel):
    model_id: str = Field(alias="modelId")
    status: str
    message: str | None = Field(default=None, alias="statusMessage")


class _Status(BaseModel):
    state: str
    message: str = ""
    ready: int | None = Field(default=None, alias="readyReplicas")


class _Deployment(_Named):
    hardware: str = ""
    desired: int | None = Field(default=None, alias="desiredReplicas")
    status: _Status


class _Requests(BaseModel):
    total: int | None = Field(default=None, alias="totalRequests")  # a number in a text


class _Metrics(BaseModel):
    requests: _Requests = Field(default=_Requests(), alias="requestMetrics")


class _Analytics(BaseModel):
    metrics: _Metrics = _Metrics()


class Together(OpenAIHost):
    """One project of an account; ``project`` names it where there are several, ``hub_token`` opens private adapters."""

    limits = Limits(replicas=_MOST_REPLICAS, rests=True, scales=True, instance_types=True, bills=True, published=True)

    def __init__(
        self,
        account: Account,
        patience: float = wire.PATIENCE_SECONDS,
        create_seconds: float = wire.CREATE_SECONDS,
        pace_seconds: float = 3.0,
    ):
        # In both forms it is a number there, and the answer's are in the older form's words.
        super().__init__(OpenAIDoor(PLATFORM, account, {"logprobs": TOP}))
        self._api = ControlPlane(PLATFORM, account, "", patience, create_seconds)
        self._account = account
        self._pace = pace_seconds
        self._of: _Project | None = None

    def check(self, wanted: Wanted) -> None:
        """Refuse what is not published: Together fetches adapters from the Hub."""
        if wanted.repository is None:
            raise refused("adapter_id", "Together fetches the adapter from the Hub: publish it there first")

    async def deploy(self, wanted: Wanted) -> Hosted:
        """Have the adapter fetched, which is waited for, and deployed; see ``Host.deploy``."""
        self.check(wanted)
        base = await self._base(wanted.base_model)
        profile = _chosen(base, wanted.config.instance_type)
        model = await self._made("models", {"name": wanted.name, "type": "adapter", "baseModelId": base.base_model_id})
        await self._fetched(model, wanted)
        endpoint = await self._made("endpoints", {"name": wanted.name})
        least, most = replicas_of(wanted.config)
        body = {
            "name": wanted.name,
            "model": f"projects/{(await self._project()).id}/models/{model.id}",
            "config": profile.config,
            "autoscaling": {"minReplicas": least, "maxReplicas": most},
        }
        await self._made(f"endpoints/{endpoint.id}/deployments", body)
        if (hosted := await self.look(wanted.name)) is None:
            raise self._api.not_shown(wanted.name)
        return hosted

    async def look(self, name: str) -> Hosted | None:
        """Return a deployment as it is now; one that is not whole is being made or taken off."""
        endpoint = await self._found("endpoints", name)
        shown = await self._found(f"endpoints/{endpoint.id}/deployments", name) if endpoint else None
        if endpoint is None or shown is None:
            there = endpoint or await self._found("models", name)
            halfway = "It has no machines (yet)."
            return Hosted(name=name, status=DeploymentStatus.DEPLOYING, reason=halfway) if there else None
        deployment = understood(_Deployment, await self._get(f"endpoints/{endpoint.id}/deployments/{shown.id}"))
        return Hosted(
            name=name,
            status=_STATES.get(deployment.status.state, DeploymentStatus.DEPLOYING),
            endpoint=f"{self._account.url}/v1",
            model=f"{(await self._project()).slug}/{name}/{name}",
            reason=wire.words(deployment.status.message or deployment.status.state, self._account),
            replicas=deployment.status.ready,
            hourly_rate=await self._rate(deployment),
        )

    async def names(self) -> list[str]:
        """Return the names of all endpoints, and of the adapters that were uploaded."""
        endpoints, models = await asyncio.gather(self._list("endpoints"), self._list("models"))
        adapters = [one for one in models if (one.get("weights") or {}).get("type") == "WEIGHTS_TYPE_ADAPTER"]
        return list(dict.fromkeys(_last(str(one["name"])) for one in named([*endpoints, *adapters])))

    async def remove(self, name: str) -> None:
        """Stop the machines, and delete all that they were for; what is still stopping is deleted by the next call."""
        endpoint = await self._found("endpoints", name)
        if endpoint is not None:
            for shown in await self._list(f"endpoints/{endpoint.id}/deployments"):
                deployment = understood(_Named, shown)
                path = f"{await self._root()}/endpoints/{endpoint.id}/deployments/{deployment.id}"
                await self._api.rest(path, {"autoscaling": {"minReplicas": 0, "maxReplicas": 0}})
                if not await self._api.delete(path):
                    return
            if not await self._api.delete(f"{await self._root()}/endpoints/{endpoint.id}"):
                return
        model = await self._found("models", name)
        if model is not None:
            await self._api.delete(f"{await self._root()}/models/{model.id}")

    def headers(self) -> dict[str, str]:
        """Return the account's key."""
        return {"Authorization": f"Bearer {self._account.get('api_key')}"}

    async def metrics(self, hosted: Hosted) -> DeploymentMetrics | None:
        """Return how many requests there were; of latency Together tells percentiles, and no mean."""
        if (endpoint := await self._found("endpoints", hosted.name)) is None:
            return None
        since = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
        shown = await self._api.get(f"{await self._root()}/endpoints/{endpoint.id}/analytics", startTime=since)
        requests = understood(_Analytics, shown or {}).metrics.requests.total
        return (
            None
            if requests is None
            else DeploymentMetrics(requests_per_minute=requests, measured_by=MeasuredBy.PLATFORM)
        )

    async def _fetched(self, model: _Named, wanted: Wanted) -> None:
        """Have the adapter's files fetched, once, and wait until they have arrived."""
        token = self._account.get("hub_token")
        deadline = time.monotonic() + _UPLOAD_SECONDS
        while time.monotonic() < deadline:
            uploads = [understood(_Upload, one) for one in await self._list("models/uploads")]
            mine = [one for one in uploads if one.model_id == model.id]
            if any(one.status == _ARRIVED for one in mine):
                return
            if mine and not any(one.status in _ARRIVING for one in mine):
                said = wire.words(mine[0].message, self._account)
                raise refused("adapter_id", f"Together could not fetch the adapter from the Hub: {said}")
            if not mine:
                body = {"modelId": model.id, "remoteUrl": f"https://huggingface.co/{wanted.repository}"}
                await self._api.make(f"{await self._root()}/models/uploads", body | ({"token": token} if token else {}))
            await asyncio.sleep(self._pace)
        raise ResourceUnavailable("Together has not fetched the adapter within half an hour; try again later.")

    async def _base(self, base_model: str) -> _Base:
        asked = {"search": base_model.rpartition("/")[2], "product": "PRODUCT_DEDICATED"}
        shown = await self._api.pages("/v2/supported-models", *_LIST, **_PAGE, **asked)
        for one in (understood(_Base, one) for one in shown):
            if base_model.lower() in (one.name.lower(), one.base_model.lower()):
                return one
        raise refused("adapter_id", f"Together has no {base_model} to deploy adapters of")

    async def _rate(self, deployment: _Deployment) -> float | None:
        """Return the list price of the machines that are wanted now; None where it is not to be found out."""
        with suppress(ResourceUnavailable, InvalidConfig, AttributeError, KeyError, TypeError, ValueError):
            kinds = (await self._api.get("/v2/public/inference-instance-types") or {}).get("data") or []
            for kind in kinds:
                if deployment.hardware in (kind.get("name"), kind.get("id")) and deployment.desired is not None:
                    return float(kind["priceCentsPerHour"]) / 100 * deployment.desired
        return None

    async def _made(self, path: str, body: dict[str, Any]) -> _Named:
        """Return what has the body's name, made now where it was not there."""
        name = str(body["name"])
        if (found := await self._found(path, name)) is not None:
            return found
        made = await self._api.make(f"{await self._root()}/{path}", body)
        if made is not None:
            return understood(_Named, made)
        if (found := await self._found(path, name)) is None:
            raise self._api.not_shown(name)
        return found

    async def _found(self, path: str, name: str) -> _Named | None:
        named = (understood(_Named, one) for one in await self._list(path))
        return next((one for one in named if _last(one.name) == name), None)

    async def _list(self, path: str) -> list[dict[str, Any]]:
        return await self._api.pages(f"{await self._root()}/{path}", *_LIST, **_PAGE)

    async def _get(self, path: str) -> Any:
        return await self._api.get(f"{await self._root()}/{path}")

    async def _root(self) -> str:
        return f"/v2/projects/{(await self._project()).id}"

    async def _project(self) -> _Project:
        if self._of is None:
            named = self._account.get("project")
            shown = await self._api.pages("/v1/projects", *_LIST, **_PAGE)
            projects = [understood(_Project, one) for one in shown]
            chosen = [one for one in projects if not named or named in (one.id, one.slug, one.name)]
            if len(chosen) != 1:
                known = ", ".join(one.slug for one in projects) or "none"
                raise refused(
                    "platform", f"Together has these projects: {known}; connect it with 'project', one of them"
                )
            self._of = chosen[0]
        return self._of


def _chosen(base: _Base, instance_type: str | None) -> _Profile:
    """Return how a base model with a merged adapter is deployed: on the fewest GPUs, unless machines are named."""
    profiles = [one for one in base.profiles if one.adapter_mode != "ADAPTER_MODE_DYNAMIC"]
    named = [one for one in profiles if instance_type in (None, one.instance_type)]
    if not named:
        known = ", ".join(dict.fromkeys(one.instance_type for one in profiles)) or "nothing"
        raise refused("instance_type", f"Together deploys {base.name} on {known}")
    return min(named, key=lambda one: one.gpu_count)


def _last(name: str) -> str:
    """Return a name without the project's and the endpoint's before it."""
    return name.rpartition("/")[2]
