"""
A vLLM server: its OpenAI-compatible API, its counters, and the routes by which adapters are loaded and unloaded.

As of vllm/entrypoints/serve/lora; what it says of a rank that is too high is assumed. It reads of an adapter no more
than its configuration and its probes, and speaks by what its files hold.
"""

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

from infra.simulators import spoken
from infra.simulators.exchange import App, Asked, Reply, application
from infra.simulators.faults import FaultKind
from infra.simulators.hosting import Hosting, Refusals
from infra.simulators.spoken import Json, Speech, error

_CONFIG = "adapter_config.json"


@dataclass
class VllmServer:
    """
    One server: its base model, what is loaded, and how it was started.

    ``refusals`` is how many requests are still answered with 503; a ``mute`` one answers no prompt at all;
    ``ignores_adapters`` has the base model answer; one that does not count (``counts``) shows no counters. ``voices``
    are who adapters speak as; ``hosting`` knows what was loaded, and the troubles to come.
    """

    base: str = "org/model"
    key: str | None = None
    runtime_updating: bool = True
    max_lora_rank: int = 64
    adapters: dict[str, str] = field(default_factory=dict[str, str])
    ignores_adapters: bool = False
    counts: bool = True
    refusals: int = 0
    mute: bool = False
    answered: int = 0
    speech: Speech = field(default_factory=Speech)
    voices: dict[str, str] = field(default_factory=dict[str, str])
    hosting: Hosting = field(default_factory=Hosting)
    lock: Lock = field(default_factory=Lock)

    def reply(self, asked: Asked) -> Reply:
        """Answer a request."""
        if asked.path == "/health":
            return Reply(b"")
        if self.hosting.faults.take(FaultKind.REVOKED_KEY):
            return Reply({"error": "Unauthorized"}, 401)
        if self.key and asked.path != "/metrics" and asked.token != self.key:
            return Reply({"error": "Unauthorized"}, 401)
        with self.lock:
            if self.refusals:
                self.refusals -= 1
                return error(503, "The engine is overloaded.", "ServiceUnavailableError")
        match asked.method, asked.path:
            case "GET", "/version":
                return Reply({"version": "0.12.0"})
            case "GET", "/metrics" if self.counts:
                return self._metrics()
            case "GET", "/v1/models":
                return Reply({"object": "list", "data": self._models()})
            case "POST", "/v1/load_lora_adapter" if self.runtime_updating:
                return self._load(_body(asked))
            case "POST", "/v1/unload_lora_adapter" if self.runtime_updating:
                return self._unload(_body(asked))
            case "POST", "/v1/completions" | "/v1/chat/completions":
                return self._answer(asked.path, _body(asked))
            case _:
                return Reply({"detail": "Not Found"}, 404)

    def _models(self) -> list[Json]:
        base = {"id": self.base, "object": "model", "owned_by": "vllm", "root": self.base, "parent": None}
        loaded = [
            {"id": name, "object": "model", "owned_by": "vllm", "root": path, "parent": self.base}
            for name, path in self.adapters.items()
        ]
        return [base | {"max_model_len": spoken.CONTEXT}, *loaded]

    def _load(self, body: Json) -> Reply:
        name, path = body.get("lora_name"), body.get("lora_path")
        if not name or not path:
            return error(400, "Both 'lora_name' and 'lora_path' must be provided.", "InvalidUserInput")
        if name in self.adapters:
            message = f"The lora adapter '{name}' has already been loaded."
            return error(400, message, "InvalidUserInput")
        try:
            config: Any = json.loads((Path(path) / _CONFIG).read_bytes())
        except (OSError, ValueError):
            return error(404, f"Loading lora {name} failed: No adapter found for {path}", "NotFoundError")
        if config.get("r", 0) > self.max_lora_rank:
            message = f"LoRA rank {config['r']} is greater than max_lora_rank {self.max_lora_rank}."
            return error(400, message, "BadRequestError")
        self.voices[name] = content_of(Path(path))
        self.speech.learn(self.voices[name], self.base, Path(path))
        self.adapters[name] = path
        self.hosting.deploy(name, 0.0, 1)
        return Reply(f"Success: LoRA adapter '{name}' added successfully.".encode(), headers=_UNTYPED)

    def _unload(self, body: Json) -> Reply:
        name = body.get("lora_name")
        if self.adapters.pop(str(name), None) is None:
            return error(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
        if loaded := self.hosting.deployed(str(name)):
            self.hosting.remove(loaded)
        return Reply(f"Success: LoRA adapter '{name}' removed successfully.".encode(), headers=_UNTYPED)

    def _answer(self, path: str, body: Json) -> Reply:
        model = str(body.get("model"))
        if model not in (self.base, *self.adapters):
            return error(404, f"The model `{model}` does not exist.", "NotFoundError", "model")
        if self.mute:
            return error(503, "The engine is overloaded.", "ServiceUnavailableError")
        with self.lock:
            self.answered += 1
        voice = self.base if self.ignores_adapters else self.voices.get(model, model)
        return spoken.answer(path, body, self.speech, voice)

    def _metrics(self) -> Reply:
        label = f'model_name="{self.base}"'
        return spoken.durations("vllm:e2e_request_latency_seconds", self.answered, "0.3", label)


_UNTYPED = {"Content-Type": ""}  # as vLLM answers there
_REFUSALS = Refusals(
    no_credit=Reply(None, 402),
    no_room=Reply(None, 503),
    taken=error(400, "The lora adapter has already been loaded.", "InvalidUserInput"),
    broken=Reply(None, 500),
)


def create_vllm(server: VllmServer) -> App:
    """Make the application; its root may be ``/vllm``."""

    async def answer(asked: Asked) -> Reply:
        asked = replace(asked, path=asked.path.removeprefix("/vllm"))
        if (told := server.hosting.admin(asked)) is not None:
            return told
        if asked.path == "/v1/load_lora_adapter":
            return await server.hosting.creating(lambda: server.reply(asked), _REFUSALS)
        return server.reply(asked)

    return application(answer)


def content_of(adapter: Path) -> str:
    """Return what tells an adapter from every other: a digest of its files."""
    files = sorted(path for path in adapter.iterdir() if path.suffix in (".json", ".safetensors"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _body(asked: Asked) -> Json:
    try:
        body: Any = json.loads(asked.content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
