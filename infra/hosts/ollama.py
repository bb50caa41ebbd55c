"""Ollama: a daemon that is given the whole model, adapter merged, as the export in its form has made it."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from infra.exports.ollama import create_model
from infra.hosts.base import Door, Hosted, Limits, Wanted
from infra.hosts.control import named, understood
from infra.hosts.openai_door import OpenAIDoor
from infra.hosts.openai_host import OpenAIHost
from infra.providers.base import Account
from infra.vendor_http import Call, ask
from peft_studio.deployments import DeploymentStatus
from peft_studio.errors import ExportFailed, InvalidConfig, ResourceUnavailable
from peft_studio.exporter.modelfile import read_modelfile

_PLATFORM = "ollama"
_MODELFILE, _LATEST = "Modelfile", ":latest"


class _Models(BaseModel):
    models: list[dict[str, Any]] | None = None


class Ollama(OpenAIHost):
    """
    One daemon (https://docs.ollama.com/api). It has no adapters: each deployment is a model of its own.

    The base model is none of its models, so it cannot be asked beside the adapter.
    """

    limits = Limits(bills=False)

    def __init__(self, account: Account):
        super().__init__(OpenAIDoor(_PLATFORM, account))
        self._url = account.url

    def check(self, wanted: Wanted) -> None:
        """Refuse what is no export in Ollama's form."""
        if not (wanted.folder / _MODELFILE).is_file():
            issue = "its files are none that Ollama takes; export it with format 'ollama'"
            raise InvalidConfig.of("adapter_id", issue)

    async def deploy(self, wanted: Wanted) -> Hosted:
        """Create the model; what the daemon has of its weights already is not sent again."""
        if (known := await self.look(wanted.name)) is not None:
            return known
        name, template, stops = read_modelfile((wanted.folder / _MODELFILE).read_text())
        weights = wanted.folder / name
        sha256 = await asyncio.to_thread(_sha256, weights)
        try:
            await create_model(self._url, wanted.name, weights, sha256, template, {"stop": stops})
        except ExportFailed as error:
            raise InvalidConfig.of("adapter_id", error.message) from error
        if (hosted := await self.look(wanted.name)) is None:
            raise ResourceUnavailable("Ollama has created the model and does not list it; try again in a moment.")
        return hosted

    async def look(self, name: str) -> Hosted | None:
        """Look the model up in the daemon's list."""
        if name not in await self.names():
            return None
        return Hosted(name=name, status=DeploymentStatus.RUNNING, endpoint=f"{self._url}/v1", model=name, replicas=1)

    async def names(self) -> list[str]:
        """Return the names of all models that the daemon has."""
        answer = await ask(Call(f"{self._url}/api/tags"))
        if answer.status != 200:
            raise self._openai.error(answer)
        models = named(understood(_Models, answer.body).models)
        return [str(model["name"]).removesuffix(_LATEST) for model in models]

    async def remove(self, name: str) -> None:
        """Delete the model."""
        answer = await ask(Call(f"{self._url}/api/delete", "DELETE", body={"model": name}))
        if answer.status not in (200, 404):
            raise self._openai.error(answer)

    def headers(self) -> dict[str, str]:
        """Return nothing: a daemon knows no keys."""
        return {}

    def door(self, hosted: Hosted) -> Door:
        """Return the daemon's own API."""
        return Door(f"{self._url}/v1", hosted.model or hosted.name)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
