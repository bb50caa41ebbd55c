"""
A vLLM server: its OpenAI-compatible API, its counters, and the routes by which adapters are loaded and unloaded.

As of vllm/entrypoints/serve/lora; what it says of a rank that is too high is assumed. It reads of an adapter no more
than its configuration and its probes.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from infra.simulators import spoken
from infra.simulators.exchange import App, Asked, Reply, application
from infra.simulators.spoken import Json, Speech, error

_CONFIG = "adapter_config.json"


@dataclass
class VllmServer:
    """
    One server: its base model, what is loaded, and how it was started.

    ``refusals`` is how many requests are still answered with 503; a ``mute`` one answers no prompt at all;
    ``ignores_adapters`` has the base model answer.
    """

    base: str = "org/model"
    key: str | None = None
    runtime_updating: bool = True
    max_lora_rank: int = 64
    adapters: dict[str, str] = field(default_factory=dict[str, str])
    ignores_adapters: bool = False
    refusals: int = 0
    mute: bool = False
    answered: int = 0
    speech: Speech = field(default_factory=Speech)
    lock: Lock = field(default_factory=Lock)

    def reply(self, asked: Asked) -> Reply:
        """Answer a request."""
        if asked.path == "/health":
            return Reply(b"")
        if self.key and asked.path != "/metrics" and asked.token != self.key:
            return Reply({"error": "Unauthorized"}, 401)
        with self.lock:
            if self.refusals:
                self.refusals -= 1
                return error(503, "The engine is overloaded.", "ServiceUnavailableError")
        match asked.method, asked.path:
            case "GET", "/version":
                return Reply({"version": "0.12.0"})
            case "GET", "/metrics":
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
        self.speech.learn(name, self.base, Path(path))
        self.adapters[name] = path
        return Reply(f"Success: LoRA adapter '{name}' added successfully.".encode(), headers=_PLAIN)

    def _unload(self, body: Json) -> Reply:
        name = body.get("lora_name")
        if self.adapters.pop(str(name), None) is None:
            return error(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
        return Reply(f"Success: LoRA adapter '{name}' removed successfully.".encode(), headers=_PLAIN)

    def _answer(self, path: str, body: Json) -> Reply:
        model = str(body.get("model"))
        if model not in (self.base, *self.adapters):
            return error(404, f"The model `{model}` does not exist.", "NotFoundError", "model")
        if self.mute:
            return error(503, "The engine is overloaded.", "ServiceUnavailableError")
        with self.lock:
            self.answered += 1
        return spoken.answer(path, body, self.speech, self.base if self.ignores_adapters else model)

    def _metrics(self) -> Reply:
        name, label = "vllm:e2e_request_latency_seconds", f'model_name="{self.base}"'
        lines = [
            f"# TYPE {name} histogram",
            f'{name}_bucket{{le="0.3",{label}}} {self.answered}',
            f"{name}_sum{{{label}}} {0.25 * self.answered}",
            f"{name}_count{{{label}}} {self.answered}",
        ]
        return Reply("\n".join([*lines, ""]).encode(), headers=_PLAIN)


_PLAIN = {"Content-Type": "text/plain; charset=utf-8"}


def create_vllm(server: VllmServer) -> App:
    """Make the application; its root may be ``/vllm``."""

    async def answer(asked: Asked) -> Reply:
        path = asked.path.removeprefix("/vllm")
        return server.reply(Asked(asked.method, path, asked.query, asked.headers, asked.content, asked.raw_query))

    return application(answer)


def _body(asked: Asked) -> Json:
    try:
        body: Any = json.loads(asked.content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
