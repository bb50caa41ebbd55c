"""
Sources of models: a hub, Civitai and an Ollama daemon, each with some models and the troubles of the real ones.

The hub serves folders of this machine in the Hugging Face layout as its repositories, so that real clients can read
them; what Civitai and Ollama answer follows their documents.
"""

import asyncio
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from infra.simulators.accounts import DOORS, GOOD
from infra.simulators.exchange import App, Asked, Reply, application
from infra.simulators.ollama_models import CreatedModels
from peft_studio.model_files import read_object, read_shapes

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_PAGE = 2  # so that clients have to turn pages
CIVITAI_MODEL: dict[str, Any] = {
    "id": 4201,
    "name": "Realistic Vision",
    "description": "<p>Photos &amp; more.</p>",
    "type": "Checkpoint",
    "tags": ["photo"],
    "stats": {"downloadCount": 120},
    "modelVersions": [
        {
            "id": 9,
            "baseModel": "SDXL 1.0",
            "files": [{"sizeKB": 10, "type": "VAE"}, {"sizeKB": 2_048_000, "type": "Model", "primary": True}],
        }
    ],
}
OLLAMA_MODEL: dict[str, Any] = {
    "name": "llama3.2:3b",
    "model": "llama3.2:3b",
    "modified_at": "2026-01-01T00:00:00Z",
    "size": 2_019_393_189,
    "digest": "a80c4f17acd5",
    "details": {"format": "gguf", "family": "llama", "parameter_size": "3.2B", "quantization_level": "Q4_K_M"},
}
OLLAMA_SHOWN: dict[str, Any] = {
    "license": "LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\nMore.",
    "template": "{{- range .Messages }}{{ .Content }}{{ end }}",
    "details": OLLAMA_MODEL["details"],
    "model_info": {
        "general.architecture": "llama",
        "general.parameter_count": 3_212_749_888,
        "llama.context_length": 131_072,
    },
    "capabilities": ["completion"],
}


@dataclass
class Trouble:
    """What goes wrong with everything that is asked: another answer, or a long silence; and what was asked so far."""

    reply: Reply | None = None
    silent_seconds: float = 0.0
    asked: list[str] = field(default_factory=list[str])
    tokens: set[str] = field(default_factory=set[str])

    async def strikes(self, asked: Asked) -> Reply | None:
        """Note a request, and spoil it if it is to be."""
        self.asked.append(asked.path)
        self.tokens.add(asked.token)
        await asyncio.sleep(self.silent_seconds)
        return self.reply


@dataclass(frozen=True)
class Repositories:
    """Folders as a hub's repositories; those that are gated or private open for the good token."""

    folders: Mapping[str, Path]
    gated: frozenset[str] = frozenset()
    private: frozenset[str] = frozenset()

    def reply(self, asked: Asked) -> Reply:
        """Answer as the Hub does."""
        if asked.path == DOORS["huggingface"].path:
            return DOORS["huggingface"].reply(asked.headers)
        path = asked.path.strip("/")
        if path == "api/models":
            return self._page(asked)
        if path.startswith("api/models/"):
            name, _, revision = path.removeprefix("api/models/").partition("/revision/")
        else:
            name, _, revision = path.partition("/resolve/")
        if name not in self.folders or (name in self.private and asked.token != GOOD):
            # As the real one: who is not allowed to know is told that there is no such thing.
            error = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            return Reply({"error": "Repository not found"}, 404 if asked.token == GOOD else 401, error)
        if not path.startswith("api/"):
            return self._file(asked, name, revision.partition("/")[2])
        if revision not in ("", "main", COMMIT):
            return Reply({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        return Reply(self._info(name))

    def _page(self, asked: Asked) -> Reply:
        visible = [name for name in self.folders if name not in self.private or asked.token == GOOD]
        found = [name for name in visible if asked.query.get("search", "").lower() in name.lower()]
        begin = int(asked.query.get("cursor", 0))
        end = begin + min(_PAGE, int(asked.query.get("limit", _PAGE)))
        following = urlencode({**asked.query, "cursor": end})
        more = {"Link": f'<{asked.origin}/api/models?{following}>; rel="next"'} if end < len(found) else {}
        return Reply([self._info(name) for name in found[begin:end]], headers=more)

    def _info(self, name: str) -> dict[str, Any]:
        folder = self.folders[name]
        weights = folder / "model.safetensors"
        count = sum(map(math.prod, read_shapes(weights).values())) if weights.is_file() else 0
        return {
            "_id": "1",
            "id": name,
            "modelId": name,
            "sha": COMMIT,
            "downloads": 1000,
            "likes": 3,
            "private": name in self.private,
            "gated": "manual" if name in self.gated else False,
            "tags": ["text-generation", "license:apache-2.0"],
            "pipeline_tag": "text-generation",
            "config": {"architectures": (read_object(folder / "config.json") or {}).get("architectures")},
            "siblings": [{"rfilename": file.name} for file in sorted(folder.iterdir())],
            **({"safetensors": {"parameters": {"F32": count}, "total": count}} if count else {}),
        }

    def _file(self, asked: Asked, name: str, inside: str) -> Reply:
        if name in self.gated and asked.token != GOOD:
            return Reply({"error": "Access is restricted"}, 403, {"X-Error-Code": "GatedRepo"})
        file = self.folders[name] / inside
        if not file.is_file():
            return Reply({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        content = file.read_bytes()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{name}-{inside}"', "Content-Type": "application/octet-stream"}
        if wanted := asked.headers.get("range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            return Reply(content[int(first) : int(last or len(content)) + 1], 206, headers)
        return Reply(content, headers=headers)


def create_hub(repositories: Repositories, trouble: Trouble) -> App:
    """Make a hub."""

    async def answer(asked: Asked) -> Reply:
        return await trouble.strikes(asked) or await asyncio.to_thread(repositories.reply, asked)

    return application(answer)


def create_civitai(trouble: Trouble) -> App:
    """Make a Civitai that has one model."""

    async def answer(asked: Asked) -> Reply:
        if spoilt := await trouble.strikes(asked):
            return spoilt
        if asked.path == "/models":
            if "page" in asked.query:
                return Reply({"error": "page cannot be used with a query"}, 400)
            found = [CIVITAI_MODEL] if asked.query.get("query", "").lower() in "realistic vision" else []
            return Reply({"items": found, "metadata": {}})
        number = asked.path.rpartition("/")[2]
        known = number == str(CIVITAI_MODEL["id"])
        return Reply(CIVITAI_MODEL) if known else Reply({"error": f"No model with id {number}"}, 404)

    return application(answer)


def create_ollama(trouble: Trouble, created: CreatedModels | None = None) -> App:
    """Make an Ollama daemon that has one model, and those that are created; its root may be ``/ollama``."""
    created = created or CreatedModels()

    async def answer(sent: Asked) -> Reply:
        asked = replace(sent, path=sent.path.removeprefix("/ollama"))
        if spoilt := await trouble.strikes(asked):
            return spoilt
        if (reply := await created.reply(asked)) is not None:
            return reply
        match asked.method, asked.path:
            case "GET", "/api/version":
                return Reply({"version": "0.14.0"})
            case "GET", "/api/tags":
                return Reply({"models": [OLLAMA_MODEL, *created.tags()]})
            case "POST", "/api/show":
                name = json.loads(asked.content).get("model")
                known = name == OLLAMA_MODEL["model"]
                return Reply(OLLAMA_SHOWN) if known else Reply({"error": f"model '{name}' not found"}, 404)
            case _:
                return Reply({"error": "not found"}, 404)

    return application(answer)
