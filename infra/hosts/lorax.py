"""LoRAX: any running server, which reads an adapter's files at the first request that names their folder."""

import asyncio
import re
import secrets
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel

from infra.hosts.base import Door, Hosted, Limits, Wanted
from infra.hosts.control import refused, understood
from infra.hosts.openai_door import OpenAIDoor
from infra.hosts.openai_host import OpenAIHost
from infra.hosts.prometheus import LORAX, metrics_of
from infra.hosts.sending import FILES
from infra.providers import wire
from infra.providers.base import Account
from infra.vendor_http import Answer, Call, ask
from peft_studio.deployments import DeploymentMetrics, DeploymentStatus
from peft_studio.effect import TOP, Said
from peft_studio.errors import ResourceUnavailable, StudioError

PLATFORM = "lorax"
SOURCE = "local"  # of Hub, S3, Predibase and a folder, the one whose content is the studio's to give and to take away
_LOAD_SECONDS = 120.0
_PROOF = "Hello"
_UNSEEN = re.compile(r"no valid adapter config|no local weights|not found|no such file", re.I)


class _Info(BaseModel):
    model_id: str


class _Alternative(BaseModel):
    text: str
    logprob: float | None = None


class _Token(BaseModel):
    text: str
    logprob: float | None = None
    special: bool = False
    alternative_tokens: list[_Alternative] = []


class _Details(BaseModel):
    tokens: list[_Token]


class _Generated(BaseModel):
    details: _Details


class Lorax(OpenAIHost):
    """
    One LoRAX server (predibase/lorax, router/src/server.rs).

    It is told the adapter with each request, keeps no list of adapters and has no call that unloads one. So what is
    deployed is what lies in the account's folder, a copy by the deployment's name, which the server sees, too:
    ``adapters_path`` says where, if that is not where the studio has it. What is taken off is no longer there to be
    loaded; what is in the server's memory stays there until it needs the room.
    """

    limits = Limits(bills=False)

    def __init__(self, account: Account, load_seconds: float = _LOAD_SECONDS):
        super().__init__(OpenAIDoor(PLATFORM, account))
        self._account = account
        self._load_seconds = load_seconds

    def check(self, wanted: Wanted) -> None:
        """Nothing is known of a server before it is asked."""

    async def deploy(self, wanted: Wanted) -> Hosted:
        """Lay the adapter's files out, and have the server load them for an answer of one token."""
        info = await self._info()
        await asyncio.to_thread(self._lay_out, wanted)
        hosted = self._hosted(wanted.name, info)
        answer = await self._generate(hosted, str(hosted.model), _PROOF, {"max_new_tokens": 1}, self._load_seconds)
        if answer.status != 200:
            raise self._not_loaded(answer, str(hosted.model))
        return hosted

    async def look(self, name: str) -> Hosted | None:
        """Look whether the adapter's files lie where the server reads them."""
        info = await self._info()
        return self._hosted(name, info) if (self._folder / name).is_dir() else None

    async def names(self) -> list[str]:
        """Return the names of all that lies where the server reads."""
        await self._info()
        there = self._folder.iterdir() if self._folder.is_dir() else ()
        return sorted(one.name for one in there if one.is_dir() and not one.name.startswith("."))

    async def remove(self, name: str) -> None:
        """Take the adapter's files away."""
        await self._info()
        await asyncio.to_thread(shutil.rmtree, self._folder / name, ignore_errors=True)

    async def say(self, hosted: Hosted, model: str, question: str | list[dict[str, str]], max_tokens: int) -> Said:
        """Have the adapter or its base answer; only LoRAX's own API has log-probabilities, and it takes texts alone."""
        if not isinstance(question, str):
            return await super().say(hosted, model, question, max_tokens)
        asked = {"max_new_tokens": max_tokens, "return_k_alternatives": TOP}
        answer = await self._generate(hosted, model, question, asked, self._load_seconds)
        if answer.status != 200:
            raise self._openai.error(answer)
        tokens = [one for one in understood(_Generated, answer.body).details.tokens if not one.special]
        if any(one.logprob is None for one in tokens):
            return Said(tokens=[one.text for one in tokens])
        return Said(
            tokens=[one.text for one in tokens],
            logprobs=[one.logprob or 0.0 for one in tokens],
            top=[{it.text: it.logprob for it in one.alternative_tokens if it.logprob is not None} for one in tokens],
        )

    def headers(self) -> dict[str, str]:
        """Return the key of what stands before the server, which knows none itself."""
        key = self._account.get("api_key")
        return {"Authorization": f"Bearer {key}"} if key else {}

    def door(self, hosted: Hosted) -> Door:
        """Return the server's own API; each request has to say where the adapter is read from."""
        door = super().door(hosted)
        return Door(door.url, door.model, door.headers, {"adapter_source": SOURCE})

    async def metrics(self, hosted: Hosted) -> DeploymentMetrics | None:
        """Return how busy the server is: it counts all its adapters together."""
        return await metrics_of(f"{self._account.url}/metrics", self.headers(), LORAX)

    @property
    def _folder(self) -> Path:
        if self._account.folder is None:
            raise ResourceUnavailable("There is no folder in which adapters could be laid out for LoRAX.")
        return self._account.folder

    def _seen_at(self, name: str) -> str:
        elsewhere = self._account.get("adapters_path")
        return str(PurePosixPath(elsewhere) / name) if elsewhere else str(self._folder / name)

    def _lay_out(self, wanted: Wanted) -> None:
        """Copy the files that make an adapter under its name, all or nothing."""
        placed = self._folder / wanted.name
        if placed.is_dir():
            return
        made = self._folder / f".{wanted.name}.{secrets.token_hex(4)}"
        made.mkdir(parents=True)
        try:
            for file in FILES:
                shutil.copyfile(wanted.folder / file, made / file)
            made.rename(placed)
        except OSError as error:
            shutil.rmtree(made, ignore_errors=True)
            if not placed.is_dir():  # another process of ours was not faster
                raise ResourceUnavailable(
                    f"The adapter cannot be copied to where LoRAX reads it: {error.strerror}."
                ) from error

    def _hosted(self, name: str, info: _Info) -> Hosted:
        return Hosted(
            name=name,
            status=DeploymentStatus.RUNNING,
            endpoint=f"{self._account.url}/v1",
            model=self._seen_at(name),
            base=info.model_id,
            replicas=1,
        )

    async def _info(self) -> _Info:
        answer = await ask(Call(f"{self._account.url}/info", headers=self.headers()))
        if answer.status != 200:
            raise self._openai.error(answer)
        return understood(_Info, answer.body)

    async def _generate(self, hosted: Hosted, model: str, text: str, asked: dict[str, Any], seconds: float) -> Answer:
        """Have a model go on with a text, greedily."""
        adapter = {} if model == hosted.base else {"adapter_id": model, "adapter_source": SOURCE}
        body = {"inputs": text, "parameters": {**adapter, **asked, "do_sample": False, "details": True}}
        return await ask(Call(f"{self._account.url}/generate", "POST", headers=self.headers(), body=body), seconds)

    def _not_loaded(self, answer: Answer, path: str) -> StudioError:
        body: Any = answer.body if isinstance(answer.body, dict) else {}
        said = wire.words(body.get("error"), self._account)
        if answer.status != 424:
            return self._openai.error(answer)
        if _UNSEEN.search(said):
            issue = (
                f"LoRAX finds no adapter at {path} ({said}); it must see {self._folder}: connect it with "
                "adapters_path, where that lies for it"
            )
            return refused("platform", issue)
        return refused("adapter_id", f"LoRAX does not load the adapter: {said}")
