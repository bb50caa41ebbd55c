"""
What an Ollama daemon makes models of: blobs by their hashes, and models created from them.

As its API is documented (https://docs.ollama.com/api): a refusal in the middle of an answer is a line of its own, below
a status of 200.
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from infra.simulators.exchange import Asked, Reply

_GGUF = b"GGUF"


@dataclass
class CreatedModels:
    """The blobs and models of a daemon; ``refusal`` is what it says instead of creating the next model."""

    blobs: dict[str, bytes] = field(default_factory=dict[str, bytes])
    models: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    refusal: str | None = None

    def reply(self, asked: Asked) -> Reply | None:
        """Answer what is about blobs and creation; None for everything else."""
        if asked.path.startswith("/api/blobs/"):
            return self._blob(asked, asked.path.removeprefix("/api/blobs/"))
        if (asked.method, asked.path) == ("POST", "/api/create"):
            return self._create(json.loads(asked.content))
        return None

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
        return _lines([*lines, {"status": "writing manifest"}, {"status": "success"}])


def _lines(lines: list[dict[str, Any]]) -> Reply:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    return Reply(text.encode(), headers={"Content-Type": "application/x-ndjson"})
