"""
Replicate: a deployment of a Cog model that takes a LoRA with each request, which the account's owner has chosen.

Replicate serves no bare LoRA: somebody must have pushed a model there that fetches one from an address that is among
its inputs. Which model, and which input, is said when Replicate is connected. The adapter itself is fetched from the
Hub, without a key, so its repository must be public.
"""

import asyncio
import re
import time
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit

from pydantic import BaseModel

from infra.hosts.base import Door, Hosted, Limits, Wanted
from infra.hosts.control import ControlPlane, named, refused, replicas_of, understood
from infra.hosts.openai_door import ANSWER_SECONDS, OpenAIDoor
from infra.providers import wire
from infra.providers.base import Account
from infra.serving.questions import Answered
from infra.vendor_http import ask
from peft_studio.deployments import DeploymentMetrics, DeploymentStatus
from peft_studio.effect import Said
from peft_studio.errors import InvalidConfig, ResourceUnavailable

PLATFORM = "replicate"
_MODEL = re.compile(r"([\w.-]+)/([\w.-]+):([0-9a-f]{64})")
_MOST, _MOST_AT_REST = 20, 5  # max_instances, min_instances
_USUAL_INPUT, _USUAL_HARDWARE = "lora_weights", "gpu-l40s"
_LENGTHS = ("max_tokens", "max_new_tokens")
_BASE = "base"
_WAIT_SECONDS = 60
_PAGES = 1000


class _Configuration(BaseModel):
    hardware: str = ""
    min_instances: int = 0
    max_instances: int = 0


class _Release(BaseModel):
    configuration: _Configuration = _Configuration()


class _Deployment(BaseModel):
    name: str
    current_release: _Release = _Release()


class _Prediction(BaseModel):
    id: str
    status: str
    output: str | list[str] | None = None
    error: str | None = None


class Replicate:
    """
    One account; ``model`` is OWNER/NAME:VERSION of the Cog model, ``adapter_input`` its input for the adapter.

    A deployment shows no state: it is there, and a request waits until a machine has started.
    """

    limits = Limits(replicas=_MOST, rests=True, scales=True, instance_types=True, bills=True, published=True)

    def __init__(
        self,
        account: Account,
        patience: float = wire.PATIENCE_SECONDS,
        create_seconds: float = wire.CREATE_SECONDS,
        pace_seconds: float = 1.0,
    ):
        self._api = ControlPlane(PLATFORM, account, "", patience, create_seconds)
        self._account = account
        self._pace = pace_seconds
        self._input = account.get("adapter_input", _USUAL_INPUT)
        self._owner = ""
        self._length = ""

    def check(self, wanted: Wanted) -> None:
        """Refuse everything without a model that takes adapters, what is not published, and too many replicas."""
        self._model()
        if wanted.repository is None:
            raise refused("adapter_id", "Replicate's model fetches the adapter from the Hub: publish it there first")
        least, most = replicas_of(wanted.config)
        if least > _MOST_AT_REST:
            raise refused("min_replicas", f"Replicate keeps at most {_MOST_AT_REST} instances at all times")
        if most > _MOST:
            raise refused("max_replicas", f"a deployment at Replicate has at most {_MOST} instances")

    async def deploy(self, wanted: Wanted) -> Hosted:
        """See that the model takes adapters, and create a deployment of it; see ``Host.deploy``."""
        self.check(wanted)
        await self._length_input()
        owner, name, version = self._model()
        least, most = replicas_of(wanted.config)
        if await self.look(wanted.name) is None:
            body = {
                "name": wanted.name,
                "model": f"{owner}/{name}",
                "version": version,
                "hardware": wanted.config.instance_type or _USUAL_HARDWARE,
                "min_instances": least,
                "max_instances": most,
            }
            await self._api.make("/deployments", body)
        if (hosted := await self.look(wanted.name)) is None:
            raise self._api.not_shown(wanted.name)
        return hosted.model_copy(update={"model": _address(wanted)})

    async def look(self, name: str) -> Hosted | None:
        """Return a deployment; Replicate does not keep which adapter it is for."""
        shown = await self._api.get(await self._path(name))
        if shown is None:
            return None
        known = understood(_Deployment, shown).current_release.configuration
        stopped = known.max_instances == 0
        return Hosted(
            name=name,
            status=DeploymentStatus.STOPPED if stopped else DeploymentStatus.RUNNING,
            base=_BASE,
            reason="It has no instances." if stopped else "",
            replicas=known.min_instances,
        )

    async def names(self) -> list[str]:
        """Return the names of all deployments; a page says where the next is, of which the query alone is taken."""
        found, query = list[str](), ""
        for _ in range(_PAGES):
            shown: dict[str, Any] = await self._api.get(f"/deployments{query}") or {}
            found += [str(one["name"]) for one in named(shown.get("results"))]
            if not shown.get("next"):
                return found
            query = f"?{urlsplit(str(shown['next'])).query}"
        raise ResourceUnavailable("Replicate did not answer with a list that ends; try again later.")

    async def remove(self, name: str) -> None:
        """Have it lose its instances, without which alone it is deleted; what is stopping, the next call deletes."""
        path = await self._path(name)
        await self._api.rest(path, {"min_instances": 0, "max_instances": 0})
        await self._api.delete(path)

    async def ask(self, hosted: Hosted, prompt: str, *, chat: bool, max_tokens: int, temperature: float) -> Answered:
        """Have the adapter answer a prompt, laid out as the model does by itself."""
        started = time.monotonic()
        pieces = await self._predicted(hosted, hosted.model or "", prompt, max_tokens, temperature)
        milliseconds = 1e3 * (time.monotonic() - started)
        return Answered(text="".join(pieces), latency_ms=milliseconds, tokens_generated=len(pieces))

    async def say(self, hosted: Hosted, model: str, question: str | list[dict[str, str]], max_tokens: int) -> Said:
        """Have the adapter or its base answer greedily; Replicate gives no log-probabilities, and takes one message."""
        if isinstance(question, list) and len(question) > 1:
            # No fault of the adapter's: nothing can be compared.
            raise ResourceUnavailable("Replicate takes a prompt, and no conversation of several messages.")
        prompt = question if isinstance(question, str) else question[0]["content"]
        said = "".join(await self._predicted(hosted, model, prompt, max_tokens, 0.0))
        return Said(tokens=re.findall(r"\s*\S+|\s+$", said))

    def door(self, hosted: Hosted) -> Door | None:
        """Return None: Replicate has an API of its own."""
        return None

    async def metrics(self, hosted: Hosted) -> DeploymentMetrics | None:
        """Return None: the API tells no numbers."""
        return None

    async def _predicted(
        self, hosted: Hosted, model: str, prompt: str, max_tokens: int, temperature: float
    ) -> list[str]:
        """Return the pieces of an answer; a text that comes as one is one."""
        given = {"prompt": prompt, await self._length_input(): max_tokens, "temperature": temperature}
        given |= {} if model == _BASE else {self._input: model}
        call = self._api.call(f"{await self._path(hosted.name)}/predictions", "POST", {"input": given})
        call = replace(call, headers={**call.headers, "Prefer": f"wait={_WAIT_SECONDS}"})
        answer = await ask(call, _WAIT_SECONDS + 10, again=False)
        if answer.status >= 300:
            raise OpenAIDoor(PLATFORM, self._account).error(answer)  # it is about a prompt, as there
        prediction, deadline = understood(_Prediction, answer.body), time.monotonic() + ANSWER_SECONDS
        while prediction.status in ("starting", "processing"):
            if time.monotonic() > deadline:
                raise ResourceUnavailable("Replicate has not answered within ten minutes; try again later.")
            await asyncio.sleep(self._pace)
            prediction = understood(_Prediction, await self._api.get(f"/predictions/{prediction.id}") or {})
        if prediction.status != "succeeded" or prediction.output is None:
            said = wire.words(prediction.error or prediction.status, self._account)
            raise ResourceUnavailable(f"The model at Replicate did not answer: {said}")
        return prediction.output if isinstance(prediction.output, list) else [prediction.output]

    async def _length_input(self) -> str:
        """Return the input that bounds an answer's length, after seeing that the model has all that it needs."""
        if self._length:
            return self._length
        owner, name, version = self._model()
        shown: Any = await self._api.get(f"/models/{owner}/{name}/versions/{version}")
        if shown is None:
            raise refused("platform", f"Replicate does not know {owner}/{name}:{version[:8]}…; connect it with another")
        try:
            inputs = set[str](shown["openapi_schema"]["components"]["schemas"]["Input"]["properties"])
        except (KeyError, TypeError):
            inputs = set[str]()
        length = next((one for one in _LENGTHS if one in inputs), None)
        if length is None or not {"prompt", "temperature", self._input} <= inputs:
            needed = f"prompt, max_tokens, temperature and {self._input}"
            known = ", ".join(sorted(inputs)) or "no inputs"
            raise refused("platform", f"{owner}/{name} at Replicate needs the inputs {needed}, and has {known}")
        self._length = length
        return length

    async def _path(self, name: str) -> str:
        if not self._owner:
            shown: dict[str, Any] = await self._api.get("/account") or {}
            self._owner = str(shown.get("username") or "")
        if not self._owner:
            raise ResourceUnavailable("Replicate does not say whose the token is; try again later.")
        return f"/deployments/{quote(self._owner, safe='')}/{name}"

    def _model(self) -> tuple[str, str, str]:
        if (known := _MODEL.fullmatch(self._account.get("model"))) is None:
            raise _no_model()
        return known[1], known[2], known[3]


def _no_model() -> InvalidConfig:
    issue = (
        "Replicate serves no bare LoRA; connect it with 'model', OWNER/NAME:VERSION of a model there that takes one as "
        "an input, or export the adapter as a merged model and push it with Cog"
    )
    return refused("platform", issue)


def _address(wanted: Wanted) -> str:
    """Return where the model fetches the adapter's weights: at the very commit."""
    return f"https://huggingface.co/{wanted.repository}/resolve/{wanted.commit or 'main'}/adapter_model.safetensors"
