"""
Hugging Face Inference Endpoints: vLLM on a machine of one's own there, with the base model and one adapter.

The wire contract is that of ``huggingface_hub`` (``create_inference_endpoint`` and its neighbours). An endpoint's
container fetches the adapter from the Hub when it starts, so the adapter must be published there.
"""

import shlex
from contextlib import suppress
from typing import Any, cast
from urllib.parse import quote

from pydantic import BaseModel, Field

from infra.hosts.base import Hosted, Limits, Wanted
from infra.hosts.control import ControlPlane, refused, replicas_of, understood
from infra.hosts.openai_door import OpenAIDoor
from infra.hosts.openai_host import OpenAIHost
from infra.providers import wire
from infra.providers.base import Account, NoCapacity
from peft_studio.deployments import DeploymentStatus
from peft_studio.errors import ResourceUnavailable
from peft_studio.vllm_rules import MAX_RANKS

PLATFORM = "huggingface"
_HUB, _ENDPOINTS = "https://huggingface.co", "https://api.endpoints.huggingface.cloud/v2"
_BESIDE_THE_HUB = "/endpoints-api/v2"  # where the API is of a Hub that is elsewhere: a simulated one
_IMAGE, _PORT = "vllm/vllm-openai:v0.23.0", 8000
_BASE = "base"
_USUAL = "aws-us-east-1-nvidia-l4-x1"  # 24 GB: a base model of up to 8 billion parameters
_MINUTES_TO_REST = 15
_MOST_REPLICAS = 1000  # nothing is written: the account's quota is what counts
_AVAILABLE = ("available", "low_availability")
_STATES = {
    "running": DeploymentStatus.RUNNING,
    "paused": DeploymentStatus.STOPPED,
    # It wakes up when it is asked, which takes as long as loading does.
    "scaledToZero": DeploymentStatus.RUNNING,
    "failed": DeploymentStatus.FAILED,
    "updateFailed": DeploymentStatus.FAILED,
}


class _Hardware(BaseModel):
    id: str
    vendor: str
    region: str
    accelerator: str
    type: str = Field(alias="instanceType")
    size: str = Field(alias="instanceSize")
    price: float | None = Field(default=None, alias="pricePerHour")
    status: str = "available"


class _Status(BaseModel):
    state: str
    url: str | None = None
    message: str | None = None
    error: str | None = Field(default=None, alias="errorMessage")
    ready: int | None = Field(default=None, alias="readyReplica")
    target: int | None = Field(default=None, alias="targetReplica")


class _Endpoint(BaseModel):
    name: str
    status: _Status
    provider: dict[str, Any]
    compute: dict[str, Any]


class _Endpoints(BaseModel):
    items: list[_Endpoint]


class HuggingFace(OpenAIHost):
    """The endpoints of the user that a token belongs to, or of the organization that is to pay (``namespace``)."""

    limits = Limits(replicas=_MOST_REPLICAS, rests=True, scales=True, instance_types=True, bills=True, published=True)

    def __init__(
        self,
        account: Account,
        patience: float = wire.PATIENCE_SECONDS,
        create_seconds: float = wire.CREATE_SECONDS,
    ):
        api = _ENDPOINTS if account.url == _HUB else account.url + _BESIDE_THE_HUB
        self._hub = ControlPlane(PLATFORM, account, "", patience, create_seconds)
        self._api = ControlPlane(PLATFORM, account, api, patience, create_seconds)
        super().__init__(OpenAIDoor(PLATFORM, account))
        self._account = account
        self._key = account.get("api_key")
        self._owner = account.get("namespace")

    def check(self, wanted: Wanted) -> None:
        """Refuse what no endpoint can serve: what is not published, and ranks that vLLM does not have."""
        if wanted.repository is None:
            raise refused("adapter_id", "an endpoint fetches the adapter from the Hub: publish it there first")
        if wanted.rank > MAX_RANKS[-1]:
            raise refused("adapter_id", f"vLLM takes ranks up to {MAX_RANKS[-1]}, and it has {wanted.rank}")
        if wanted.base_model.startswith("/"):
            raise refused("adapter_id", "its base model is a folder of this machine; an endpoint needs one of the Hub")

    async def deploy(self, wanted: Wanted) -> Hosted:
        """Create the endpoint; see ``Host.deploy``."""
        self.check(wanted)
        if (known := await self.look(wanted.name)) is not None:
            return known
        hardware = await self._hardware(wanted.config.instance_type)
        made = await self._api.make(await self._path(), self._body(wanted, hardware))
        if made is not None:
            return self._hosted(understood(_Endpoint, made), hardware.price)
        if (known := await self.look(wanted.name)) is None:
            raise self._api.not_shown(wanted.name)
        return known

    async def look(self, name: str) -> Hosted | None:
        """Return an endpoint as it is now, at the list price of its machines."""
        shown = await self._api.get(await self._path(name))
        if shown is None:
            return None
        endpoint, price = understood(_Endpoint, shown), None
        with suppress(ResourceUnavailable):  # what it costs is not worth failing for
            price = next((one.price for one in await self._catalogue() if _is_of(endpoint, one)), None)
        return self._hosted(endpoint, price)

    async def names(self) -> list[str]:
        """Return the names of all endpoints; the list has no pages."""
        shown = await self._api.get(await self._path())
        return [endpoint.name for endpoint in understood(_Endpoints, shown).items]

    async def remove(self, name: str) -> None:
        """Delete the endpoint; nothing else was made."""
        await self._api.delete(await self._path(name))

    def headers(self) -> dict[str, str]:
        """Return the token, which an endpoint takes, too."""
        return {"Authorization": f"Bearer {self._key}"}

    def _hosted(self, endpoint: _Endpoint, price: float | None) -> Hosted:
        status = endpoint.status
        running = status.state in ("running", "initializing", "updating")
        return Hosted(
            name=endpoint.name,
            status=_STATES.get(status.state, DeploymentStatus.DEPLOYING),
            endpoint=f"{status.url.rstrip('/')}/v1" if status.url else None,
            model=endpoint.name,
            base=_BASE,
            reason=wire.words(status.error or status.message or status.state, self._account),
            replicas=status.ready,
            hourly_rate=None if price is None else price * (max(status.target or 0, 1) if running else 0),
        )

    def _body(self, wanted: Wanted, hardware: _Hardware) -> dict[str, Any]:
        least, most = replicas_of(wanted.config)
        scaling = {"minReplica": least, "maxReplica": most, "scaleToZeroTimeout": None if least else _MINUTES_TO_REST}
        return {
            "name": wanted.name,
            "type": "authenticated",
            "provider": {"vendor": hardware.vendor, "region": hardware.region},
            "compute": {
                "accelerator": hardware.accelerator,
                "instanceType": hardware.type,
                "instanceSize": hardware.size,
                "scaling": scaling,
            },
            "model": {
                "repository": wanted.base_model,
                "revision": wanted.revision,
                "framework": "custom",
                "task": "text-generation",
                "image": {"custom": {"url": _IMAGE, "port": _PORT, "healthRoute": "/health"}},
                "command": ["/bin/bash", "-c", _command(wanted)],
                "env": {},
                "secrets": {"HF_TOKEN": self._key},  # the adapter may be in a private repository
            },
            "tags": ["peft-studio"],
        }

    async def _hardware(self, instance_type: str | None) -> _Hardware:
        """Return the machine that is wanted; a name without vendor and region is of the first that has it."""
        wanted = instance_type or _USUAL
        named = [one for one in await self._catalogue() if wanted in (one.id, f"{one.type}-{one.size}")]
        if not named:
            raise refused("instance_type", f"Hugging Face has no {wanted!r}; it is like {_USUAL} or nvidia-l4-x1")
        free = [one for one in named if one.status in _AVAILABLE]
        if not free:
            raise NoCapacity(f"Hugging Face has no {wanted} at the moment; choose another instance_type.")
        return free[0]

    async def _catalogue(self) -> list[_Hardware]:
        shown = await self._api.get(f"/provider/{await self._namespace()}")
        try:
            return [
                _Hardware.model_validate(compute | {"vendor": vendor["name"], "region": region["name"]})
                for vendor in shown["vendors"]
                for region in vendor["regions"]
                for compute in region["computes"]
            ]
        except (TypeError, KeyError, ValueError):
            raise ResourceUnavailable("Hugging Face shows its machines in a way that cannot be read.") from None

    async def _path(self, name: str = "") -> str:
        return f"/endpoint/{await self._namespace()}" + (f"/{quote(name, safe='')}" if name else "")

    async def _namespace(self) -> str:
        if not self._owner:
            shown = await self._hub.get("/api/whoami-v2")
            self._owner = str(cast(dict[str, Any], shown or {}).get("name") or "")
        if not self._owner:
            raise ResourceUnavailable("Hugging Face does not say whose the token is; give 'namespace' with it.")
        return quote(self._owner, safe="")


def _command(wanted: Wanted) -> str:
    """Return what the container runs: the endpoint's own model lies in /repository already."""
    fetch = ["hf", "download", wanted.repository or "", "--local-dir", "/tmp/adapter"]
    fetch += ["--revision", wanted.commit] if wanted.commit else []
    rank = next(rank for rank in MAX_RANKS if rank >= wanted.rank)
    serve = ["vllm", "serve", "/repository", "--served-model-name", _BASE, "--port", str(_PORT), "--enable-lora"]
    serve += ["--max-lora-rank", str(rank), "--lora-modules", f"{wanted.name}=/tmp/adapter"]
    return f"{shlex.join(fetch)} && exec {shlex.join(serve)}"


def _is_of(endpoint: _Endpoint, hardware: _Hardware) -> bool:
    provider, compute = endpoint.provider, endpoint.compute
    place = provider.get("vendor"), provider.get("region"), compute.get("instanceType"), compute.get("instanceSize")
    return place == (hardware.vendor, hardware.region, hardware.type, hardware.size)
