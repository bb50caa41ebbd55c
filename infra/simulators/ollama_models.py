"""
What an Ollama daemon makes models of: blobs by their hashes, and models created from them, which answer.

As its API is documented (https://docs.ollama.com/api): a refusal in the middle of an answer is a line of its own, below
a status of 200.
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from infra.simulators.exchange import Asked, Reply
from infra.simulators.hosting import Hosting, Refusals
from infra.simulators.spoken import Speech, answer, error

_GGUF = b"GGUF"
_NEVER = Reply(None, 500)
_REFUSALS = Refusals(no_credit=_NEVER, no_room=_NEVER, taken=_NEVER, broken=Reply({"error": "unexpected EOF"}, 500))


@dataclass
class CreatedModels:
    """
    The blobs and models of a daemon; ``refusal`` is what it says instead of creating the next model.

    ``hosting`` is what was created, with the troubles to come.
    """

    blobs: dict[str, bytes] = field(default_factory=dict[str, bytes])
    models: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    refusal: str | None = None
    speech: Speech = field(default_factory=Speech)
    hosting: Hosting = field(default_factory=Hosting)

    async def reply(self, asked: Asked) -> Reply | None:
        """Answer what is about blobs and creation; None for everything else."""
        if (told := self.hosting.admin(asked)) is not None:
            return told
        if asked.path.startswith("/api/blobs/"):
            return self._blob(asked, asked.path.removeprefix("/api/blobs/"))
        match asked.method, asked.path:
            case "POST", "/api/create":
                return await self.hosting.creating(lambda: self._create(json.loads(asked.content)), _REFUSALS)
            case "DELETE", "/api/delete":
                return self._delete(json.loads(asked.content)["model"])
            case "POST", "/v1/completions" | "/v1/chat/completions":
                return self._answer(asked)
            case _:
                return None

    def tags(self) -> list[dict[str, Any]]:
        """List the created models; a name without a tag has the latest."""
        return [{"name": _tagged(name), "model": _tagged(name), "size": 1, "digest": "0"} for name in self.models]

    def _delete(self, name: str) -> Reply:
        if self.models.pop(name.removesuffix(":latest"), None) is None:
            return Reply({"error": f"model '{name}' not found"}, 404)
        if created := self.hosting.deployed(name.removesuffix(":latest")):
            self.hosting.remove(created)
        return Reply(None)

    def _answer(self, asked: Asked) -> Reply:
        body = json.loads(asked.content)
        name = str(body.get("model")).removesuffix(":latest")
        if name not in self.models:
            return error(404, f"model '{name}' not found", "api_error")
        made_of = ",".join(self.models[name]["files"].values())
        return answer(asked.path, body, self.speech, made_of)

    def _blob(self, asked: Asked, digest: str) -> Reply:
        if asked.method == "HEAD":
            return Reply(None, 200 if digest in self.blobs else 404)
        if f"sha256:{hashlib.sha256(asked.content).hexdigest()}" != digest:
            return Reply({"error": "digest mismatch"}, 400)
        known = digest in self.blobs
        self.blobs[digest] = asked.content
        return Reply(None, 200 if known else 201)

    def _create(self, wanted: dict[str, Any]) -> Reply:
        missing = [digest for digest in wanted["files"].values() if digest not in self.blobs]
        if missing:
            return Reply({"error": f"blob {missing[0]} not found"}, 404)
        lines: list[dict[str, Any]] = [{"status": "parsing GGUF"}]
        broken = any(not self.blobs[digest].startswith(_GGUF) for digest in wanted["files"].values())
        if error := self.refusal or ("invalid file magic" if broken else None):
            return _lines([*lines, {"error": error}])
        self.models[wanted["model"]] = wanted
        if self.hosting.deployed(wanted["model"]) is None:
            self.hosting.deploy(wanted["model"], 0.0, 1)
        return _lines([*lines, {"status": "writing manifest"}, {"status": "success"}])


def _tagged(name: str) -> str:
    return name if ":" in name else f"{name}:latest"


def _lines(lines: list[dict[str, Any]]) -> Reply:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    return Reply(text.encode(), headers={"Content-Type": "application/x-ndjson"})
