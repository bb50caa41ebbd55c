"""
Modal: an app of one's own that runs vLLM with the adapter, and rests when nobody asks.

Its container fetches base model and adapter from the Hub each time that it starts. Requests are let in by a key that
follows from the token and the deployment's name, so that it need not be kept.
"""

import hashlib
import hmac
import re
import shlex

from infra.hosts.base import Door, Hosted, Limits, Wanted
from infra.hosts.control import refused, replicas_of
from infra.hosts.modal_apps import PORT, App, ModalApps
from infra.hosts.openai_door import OpenAIDoor
from infra.hosts.openai_host import OpenAIHost
from infra.providers.base import Account
from peft_studio.deployments import DeploymentStatus
from peft_studio.vllm_rules import MAX_RANKS

PLATFORM = "modal"
_GPU = re.compile(r"[A-Z][A-Z0-9-]*(:[1-8])?")
_USUAL_GPU = "L4"  # 24 GB: a base model of up to 8 billion parameters
_REST_AFTER = 900  # seconds
_MOST_REPLICAS = 1000  # nothing is written: the workspace's plan is what counts
_BASE = "base"


class Modal(OpenAIHost):
    """One workspace; ``hub_token`` opens adapters and base models that are not public."""

    limits = Limits(replicas=_MOST_REPLICAS, rests=True, scales=True, instance_types=True, bills=True, published=True)

    def __init__(self, account: Account, apps: ModalApps | None = None):
        super().__init__(OpenAIDoor(PLATFORM, account))
        self._account = account
        self._apps = apps or ModalApps(account)

    def check(self, wanted: Wanted) -> None:
        """Refuse what is not published, ranks that vLLM does not have, and GPUs that are not named as Modal does."""
        if wanted.repository is None:
            raise refused("adapter_id", "the app at Modal fetches the adapter from the Hub: publish it there first")
        if wanted.base_model.startswith("/"):
            raise refused("adapter_id", "its base model is a folder of this machine; an app needs one of the Hub")
        if wanted.rank > MAX_RANKS[-1]:
            raise refused("adapter_id", f"vLLM takes ranks up to {MAX_RANKS[-1]}, and it has {wanted.rank}")
        if not _GPU.fullmatch(wanted.config.instance_type or _USUAL_GPU):
            raise refused("instance_type", "Modal names GPUs like L4, A100-80GB or H100:2")

    async def deploy(self, wanted: Wanted) -> Hosted:
        """Deploy the app; one that is there is left as it is."""
        self.check(wanted)
        if (known := await self.look(wanted.name)) is not None:
            return known
        least, most = replicas_of(wanted.config)
        token = self._account.get("hub_token")
        app = App(
            name=wanted.name,
            command=["/bin/sh", "-c", _command(wanted)],
            gpu=wanted.config.instance_type or _USUAL_GPU,
            least=least,
            most=most,
            rest_after=_REST_AFTER,
            secrets={"VLLM_API_KEY": self._key(wanted.name), **({"HF_TOKEN": token} if token else {})},
        )
        await self._apps.deploy(app)
        known = await self.look(wanted.name)
        return known or Hosted(name=wanted.name, status=DeploymentStatus.DEPLOYING, model=wanted.name, base=_BASE)

    async def look(self, name: str) -> Hosted | None:
        """Return an app that is deployed; whether a container of it runs yet shows when it is asked."""
        url = await self._apps.url(name)
        if url is None:
            return None
        endpoint = f"{url.rstrip('/')}/v1"
        return Hosted(name=name, status=DeploymentStatus.RUNNING, endpoint=endpoint, model=name, base=_BASE)

    async def names(self) -> list[str]:
        """Return the names of all apps that are deployed."""
        return await self._apps.names()

    async def remove(self, name: str) -> None:
        """Stop the app, with all its containers; nothing else was made."""
        await self._apps.stop(name)

    def door(self, hosted: Hosted) -> Door:
        """Return vLLM's API in the app, with the app's own key."""
        door = super().door(hosted)
        return Door(door.url, door.model, {"Authorization": f"Bearer {self._key(hosted.name)}"})

    def headers(self) -> dict[str, str]:
        """Return nothing: each app has a key of its own."""
        return {}

    def _key(self, name: str) -> str:
        secret = self._account.get("token_secret").encode()
        return hmac.new(secret, f"peft-studio:{name}".encode(), hashlib.sha256).hexdigest()


def _command(wanted: Wanted) -> str:
    """Return what the container runs; vLLM reads its key from VLLM_API_KEY."""
    fetch = ["hf", "download", wanted.repository or "", "--local-dir", "/tmp/adapter"]
    fetch += ["--revision", wanted.commit] if wanted.commit else []
    rank = next(rank for rank in MAX_RANKS if rank >= wanted.rank)
    serve = ["vllm", "serve", wanted.base_model, "--served-model-name", _BASE, "--host", "0.0.0.0", "--port", str(PORT)]
    serve += ["--revision", wanted.revision] if wanted.revision else []
    serve += ["--enable-lora", "--max-lora-rank", str(rank), "--lora-modules", f"{wanted.name}=/tmp/adapter"]
    return f"{shlex.join(fetch)} && exec {shlex.join(serve)}"
