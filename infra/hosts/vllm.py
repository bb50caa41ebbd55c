"""vLLM: any running server, whose adapters are loaded and unloaded through its routes for that."""

from pathlib import Path, PurePosixPath
from typing import Any

from infra.hosts.base import Door, Hosted, Limits, Wanted
from infra.hosts.openai_door import ListedModel, OpenAIDoor
from infra.hosts.prometheus import VLLM, metrics_of
from infra.providers import wire
from infra.providers.base import Account
from infra.serving.questions import Answered
from infra.vendor_http import Answer, Call, ask
from peft_studio.deployments import DeploymentMetrics, DeploymentStatus
from peft_studio.effect import Said
from peft_studio.errors import InvalidConfig, ResourceUnavailable, StudioError

_PLATFORM = "vllm"
_LOAD_SECONDS = 120.0
_STUDIOS_FOLDER = "adapters"  # in the data directory


class Vllm:
    """
    One vLLM server (vllm/entrypoints/serve/lora: ``load_lora_adapter``, ``unload_lora_adapter``).

    What is loaded is gone when the server is started anew. It reads an adapter's files itself, so it must see them:
    ``adapters_path`` says where it has the studio's folder of adapters, if that is not where the studio has it.
    """

    limits = Limits(bills=False)

    def __init__(self, account: Account, load_seconds: float = _LOAD_SECONDS):
        self._account = account
        self._load_seconds = load_seconds
        self._api = OpenAIDoor(_PLATFORM, account)

    def check(self, wanted: Wanted) -> None:
        """Nothing is known of a server before it is asked."""

    async def deploy(self, wanted: Wanted) -> Hosted:
        """Load the adapter; see ``Host.deploy``."""
        if (known := await self.look(wanted.name)) is not None:
            return known
        path = self._seen_at(wanted.folder)
        answer = await self._post("load_lora_adapter", {"lora_name": wanted.name, "lora_path": path})
        if answer.status != 200 and "already" not in _said(answer):  # another process of ours was faster
            raise self._not_loaded(answer, path)
        if (hosted := await self.look(wanted.name)) is None:
            raise ResourceUnavailable("vLLM has loaded the adapter and does not list it; try again in a moment.")
        return hosted

    async def look(self, name: str) -> Hosted | None:
        """Look the adapter up among the server's models."""
        models = await self._models()
        if name not in [model.id for model in models if model.parent]:
            return None
        base = next((model.id for model in models if not model.parent), None)
        endpoint = f"{self._account.url}/v1"
        return Hosted(name=name, status=DeploymentStatus.RUNNING, endpoint=endpoint, model=name, base=base, replicas=1)

    async def names(self) -> list[str]:
        """Return the names of all adapters that are loaded."""
        return [model.id for model in await self._models() if model.parent]

    async def remove(self, name: str) -> None:
        """Unload the adapter."""
        answer = await self._post("unload_lora_adapter", {"lora_name": name})
        if answer.status == 404 and name not in await self.names():
            return
        if answer.status != 200:
            raise self._without_routes() if answer.status == 404 else self._api.error(answer)

    async def ask(self, hosted: Hosted, prompt: str, *, chat: bool, max_tokens: int, temperature: float) -> Answered:
        """Have the adapter answer a prompt."""
        door = self.door(hosted)
        return await self._api.ask(door, prompt, chat=chat, max_tokens=max_tokens, temperature=temperature)

    async def say(self, hosted: Hosted, model: str, question: str | list[dict[str, str]], max_tokens: int) -> Said:
        """Have the adapter or its base answer greedily, with log-probabilities."""
        return await self._api.say(self.door(hosted), model, question, max_tokens)

    def door(self, hosted: Hosted) -> Door:
        """Return the server's own API."""
        return Door(f"{self._account.url}/v1", hosted.model or hosted.name, self._headers)

    async def metrics(self, hosted: Hosted) -> DeploymentMetrics | None:
        """Return how busy the server is: it counts all its adapters together."""
        return await metrics_of(f"{self._account.url}/metrics", self._headers, VLLM)

    @property
    def _headers(self) -> dict[str, str]:
        key = self._account.get("api_key")
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _seen_at(self, folder: Path) -> str:
        elsewhere = self._account.get("adapters_path")
        if elsewhere and folder.parent.name == _STUDIOS_FOLDER:
            return str(PurePosixPath(elsewhere) / folder.name)
        return str(folder)

    async def _models(self) -> list[ListedModel]:
        return await self._api.models(Door(f"{self._account.url}/v1", "", self._headers))

    async def _post(self, route: str, body: dict[str, str]) -> Answer:
        url = f"{self._account.url}/v1/{route}"
        return await ask(Call(url, "POST", headers=self._headers, body=body), self._load_seconds)

    def _not_loaded(self, answer: Answer, path: str) -> StudioError:
        said = wire.words(_said(answer), self._account)
        if answer.status == 404 and not said:
            return self._without_routes()
        if answer.status == 404:
            return InvalidConfig(
                f"platform: vLLM finds no adapter at {path} ({said}); it must see the studio's folder of adapters: "
                "connect it with adapters_path, where that lies for it.",
                field="platform",
                issue=said,
            )
        if answer.status in (400, 422, 500) and said:  # a rank that is too high is told of with either
            return InvalidConfig(f"adapter_id: vLLM does not load the adapter: {said}", field="adapter_id", issue=said)
        return self._api.error(answer)

    def _without_routes(self) -> InvalidConfig:
        issue = "it was started without runtime updates of adapters"
        return InvalidConfig(
            f"platform: {issue}; start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.",
            field="platform",
            issue=issue,
        )


def _said(answer: Answer) -> str:
    """Return the server's own words; FastAPI's for a route that does not exist are none of its."""
    body: Any = answer.body if isinstance(answer.body, dict) else {}
    error: Any = body.get("error") or body
    return str(error.get("message") or "") if isinstance(error, dict) else str(error)
