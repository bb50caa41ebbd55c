"""
A LoRAX server: its own API, its OpenAI-compatible one, its counters, and adapters that are read when they are asked.

As of predibase/lorax, router/src and server/lorax_server. Before it stands a proxy that asks for a key, since LoRAX
knows none. Two things are simpler: an adapter whose folder is gone is forgotten at once, where the real server keeps it
until it needs the room, and lengths are counted in words.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from infra.simulators import spoken
from infra.simulators.entrance import Entrance
from infra.simulators.exchange import App, Asked, Reply, application
from infra.simulators.hosting import Hosting, Refusals
from infra.simulators.spoken import Json, Speech
from infra.simulators.vllm import content_of

_CONFIG = "adapter_config.json"
_ANSWERING = ("/generate", "/v1/completions", "/v1/chat/completions")


def error(status: int, message: str, kind: str) -> Reply:
    """Refuse, as LoRAX does."""
    return Reply({"error": message, "error_type": kind}, status)


def answer(path: str, body: Json, speech: Speech, model: str) -> Reply:
    """Have a model answer in OpenAI's form, as LoRAX does: without log-probabilities, whatever was asked."""
    plain = {name: value for name, value in body.items() if not name.endswith("logprobs")}
    return _in_its_words(spoken.answer(path, plain, speech, model))


def _in_its_words(reply: Reply) -> Reply:
    if reply.status < 400:
        return reply
    return error(422, f"Input validation error: {reply.body['error']['message']}", "validation")


@dataclass
class LoraxServer:
    """
    One server: its base model, and what it has loaded, by the folder that a request named.

    ``reservation`` is how many bytes an adapter may have; ``ignores_adapters`` has the base model answer.
    """

    base: str = "org/model"
    reservation: int = 1 << 30
    ignores_adapters: bool = False
    answered: int = 0
    voices: dict[str, str] = field(default_factory=dict[str, str])
    speech: Speech = field(default_factory=Speech)
    hosting: Hosting = field(default_factory=Hosting)

    async def reply(self, asked: Asked) -> Reply:
        """Answer a request that was let in."""
        self._forget()
        match asked.method, asked.path:
            case "GET", "/health":
                return Reply(b"")
            case "GET", "/info":
                return Reply(_INFO | {"model_id": self.base})
            case "GET", "/metrics":
                return self._metrics()
            case "POST", path if path in _ANSWERING:
                return await self._answer(path, json.loads(asked.content))
            case _:
                return Reply(b"", 404)

    async def _answer(self, path: str, body: Json) -> Reply:
        parameters = body.get("parameters") or {} if path == "/generate" else body
        adapter = str(parameters.get("adapter_id" if path == "/generate" else "model") or "")
        adapter = "" if adapter == self.base else adapter
        if adapter and adapter not in self.voices:
            source = str(parameters.get("adapter_source") or "hub")
            loaded = await self.hosting.creating(lambda: self._load(adapter, source), _REFUSALS)
            if loaded.status != 200:
                return loaded
        voice = self.base if self.ignores_adapters or not adapter else self.voices[adapter]
        self.answered += 1
        if path != "/generate":
            return answer(path, body, self.speech, voice)
        return _generated(body["inputs"], parameters, self.speech, voice)

    def _load(self, path: str, source: str) -> Reply:
        folder = Path(path)
        if source != "local" or not (folder / _CONFIG).is_file():
            tried = f"tried {folder / _CONFIG if source == 'local' else None} and None"
            return _failed(f"No valid adapter config file found: {tried}")
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        if size > self.reservation:
            sizes = f"{size} / {self.reservation} bytes"
            return _failed(f"Adapter {path} is larger than adapter memory reservation: {sizes}")
        self.voices[path] = content_of(folder)
        self.speech.learn(self.voices[path], self.base, folder)
        self.hosting.deploy(folder.name, 0.0, 1)
        return Reply()

    def _forget(self) -> None:
        for path in [path for path in self.voices if not Path(path).is_dir()]:
            del self.voices[path]
            if loaded := self.hosting.deployed(Path(path).name):
                self.hosting.remove(loaded)

    def _metrics(self) -> Reply:
        return spoken.durations("lorax_request_duration", self.answered, "+Inf")


def create_lorax(server: LoraxServer) -> App:
    """Make the application; its root may be ``/lorax``."""
    entrance = Entrance("lorax", server.hosting, error(429, "Model is overloaded", "overloaded"))

    async def reply(asked: Asked) -> Reply:
        asked = replace(asked, path=asked.path.removeprefix("/lorax"))
        refused = entrance.reply(asked)
        return await server.reply(asked) if refused is None else refused

    return application(reply)


_INFO: Json = {
    "model_sha": "b" * 40,
    "model_dtype": "torch.float16",
    "model_device_type": "cuda",
    "model_pipeline_tag": "text-generation",
    "max_concurrent_requests": 128,
    "max_best_of": 2,
    "max_stop_sequences": 4,
    "max_input_length": spoken.CONTEXT - 1,
    "max_total_tokens": spoken.CONTEXT,
    "waiting_served_ratio": 1.2,
    "max_batch_total_tokens": 32000,
    "max_waiting_tokens": 20,
    "validation_workers": 2,
    "version": "0.1.0",
}
_REFUSALS = Refusals(
    no_credit=Reply(None, 402),
    no_room=Reply(None, 503),
    taken=Reply(None, 409),
    broken=error(500, "Incomplete generation", "incomplete_generation"),
)


def _failed(why: str) -> Reply:
    return error(424, f"Request failed during generation: Server error: {why}", "generation")


def _generated(inputs: str, parameters: Json, speech: Speech, voice: str) -> Reply:
    """Answer ``/generate``: token by token where it is asked for details."""
    alternatives = int(parameters.get("return_k_alternatives") or 0)
    asked = {"model": voice, "prompt": inputs, "max_tokens": parameters.get("max_new_tokens"), "logprobs": 1}
    reply = _in_its_words(spoken.answer("/completions", asked, speech, voice))
    if reply.status >= 400:
        return reply
    choice, usage = reply.body["choices"][0], reply.body["usage"]
    whole: Json = {"generated_text": choice["text"]}
    if parameters.get("details"):
        said, ended = choice["logprobs"], choice["finish_reason"] == "stop"
        shown = zip(said["tokens"], said["token_logprobs"], said["top_logprobs"], strict=True)
        tokens = [_token(place, *one, alternatives) for place, one in enumerate(shown)]
        whole["details"] = {
            "finish_reason": "eos_token" if ended else "length",
            "prompt_tokens": usage["prompt_tokens"],
            "generated_tokens": usage["completion_tokens"],
            "skipped_tokens": 0,
            "seed": None,
            "prefill": [],
            "tokens": tokens,
        }
    return Reply(whole)


def _token(place: int, text: str, logprob: float, top: Mapping[str, float], alternatives: int) -> Json:
    ends = text == ""
    shown: dict[str, Any] = {"id": place, "text": "</s>" if ends else text, "logprob": logprob, "special": ends}
    others = [{"id": 0, "text": word, "logprob": value} for word, value in list(top.items())[:alternatives]]
    return shown | ({"alternative_tokens": others} if alternatives else {}) | {"skipped": False}
