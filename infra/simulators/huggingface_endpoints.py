"""
Hugging Face Inference Endpoints: control plane and the endpoints themselves, which run vLLM.

As the vendor's own library expects it. Assumed, since nothing is written on them: the bodies of refusals. A container's
command is read for what it serves: an endpoint whose command does not load an adapter has none.
"""

import json
import shlex
import time
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from infra.simulators.entrance import Entrance
from infra.simulators.exchange import App, Asked, Reply, application
from infra.simulators.hosting import Hosting, Json, Refusals, SimulatedDeployment
from infra.simulators.spoken import Speech, answer, error

OWNER = "alice"
_ROOT, _API = "/huggingface", "/endpoints-api/v2"
_NEEDED = ("name", "type", "provider", "compute", "model")
_REFUSALS = Refusals(
    no_credit=Reply({"error": "Payment required: add a payment method to your account"}, 402),
    no_room=Reply({"error": "Quota exceeded for nvidia-l4 in us-east-1"}, 400),
    taken=Reply({"error": "Endpoint name already taken"}, 409),
    broken=Reply({"error": "Internal Server Error"}, 500),
)


def _compute(region: str, kind: str, size: int, price: float, status: str = "available") -> Json:
    return {
        "id": f"aws-{region}-{kind}-x{size}",
        "accelerator": "gpu",
        "numAccelerators": size,
        "memoryGb": 30 * size,
        "gpuMemoryGb": 24 * size,
        "instanceType": kind,
        "instanceSize": f"x{size}",
        "architecture": kind.replace("-", " ").title(),
        "status": status,
        "pricePerHour": price,
        "numCpus": 7 * size,
        "maxAccelerators": 8,
        "usedAccelerators": 0,
    }


_REGIONS = {
    "us-east-1": [
        _compute("us-east-1", "nvidia-l4", 1, 0.8),
        _compute("us-east-1", "nvidia-l4", 4, 3.8),
        _compute("us-east-1", "nvidia-h100", 1, 10.0, "not_available"),
    ],
    "eu-west-1": [_compute("eu-west-1", "nvidia-l4", 1, 0.9)],
}
_PRICES = {
    (region, one["instanceType"], one["instanceSize"]): float(one["pricePerHour"])
    for region, computes in _REGIONS.items()
    for one in computes
}


def create_huggingface_endpoints(hosting: Hosting) -> App:
    """Make the application; it answers below ``/huggingface``, where the Hub itself says whose a token is."""
    too_many = Reply({"error": "Too Many Requests"}, 429, {"Retry-After": "1"})
    entrance, endpoints = Entrance("huggingface", hosting, too_many), _Endpoints(hosting)

    async def reply(asked: Asked) -> Reply:
        if (refused := entrance.reply(asked)) is not None:
            return refused
        path = asked.path.removeprefix(_ROOT)
        match asked.method, path.removeprefix(_API).strip("/").split("/"):
            case "GET", ["api", "whoami-v2"]:
                return Reply({"type": "user", "id": "u1", "name": OWNER})
            case "GET", ["provider", owner] if owner == OWNER:
                regions = [{"name": name, "status": "available", "computes": some} for name, some in _REGIONS.items()]
                return Reply({"vendors": [{"name": "aws", "status": "available", "regions": regions}]})
            case method, ["endpoint", owner, *rest] if owner == OWNER:
                return await endpoints.act(method, rest, asked)
            case _, ["serving", name, "v1", *_]:
                return endpoints.answer(name, asked)
            case _:
                return Reply({"error": "Not Found"}, 404)

    return application(reply)


class _Endpoints:
    """What can be done to endpoints."""

    def __init__(self, hosting: Hosting):
        self._hosting = hosting
        self._speech = Speech()

    async def act(self, method: str, rest: list[str], asked: Asked) -> Reply:
        """List, create, show or delete endpoints."""
        if not rest and method == "GET":
            return Reply({"items": [_shown(one, asked) for one in self._hosting.listed_deployments()]})
        if not rest and method == "POST":
            body = json.loads(asked.content)
            return await self._hosting.creating(lambda: self._create(body, asked), _REFUSALS, bills=True)
        found = self._hosting.deployed(rest[0])
        if found is None:
            return Reply({"error": "Endpoint not found"}, 404)
        match method, rest[1:]:
            case "GET", []:
                return Reply(_shown(found, asked))
            case "DELETE", []:
                self._hosting.remove(found)
                return Reply({}, 202)
            case "POST", ["pause" | "resume" | "scale-to-zero" as action]:
                found.details["halted"] = {"pause": "paused", "scale-to-zero": "scaledToZero"}.get(action)
                return Reply(_shown(found, asked))
            case _:
                return Reply({"error": "Method not allowed"}, 405)

    def answer(self, name: str, asked: Asked) -> Reply:
        """Answer as the endpoint's vLLM does; one that rests wakes up by being asked, and says so at first."""
        found = self._hosting.deployed(name)
        if found is None or not found.is_running or found.details["halted"] == "paused":
            return Reply({"error": "Service Unavailable"}, 503)
        if found.details["halted"]:
            found.details["halted"] = None
            return Reply({"error": "Service Unavailable"}, 503)
        served = _served(found.details["asked"])
        path = asked.path.partition(f"/serving/{name}")[2]
        if path == "/v1/models":
            return Reply({"object": "list", "data": [{"id": one, "object": "model"} for one in served]})
        body = json.loads(asked.content)
        if body.get("model") not in served:
            return error(404, f"The model `{body.get('model')}` does not exist.", "NotFoundError", "model")
        return answer(path, body, self._speech, served[body["model"]])

    def _create(self, body: Json, asked: Asked) -> Reply:
        if missing := [name for name in _NEEDED if not body.get(name)]:
            return Reply({"error": f"missing field `{missing[0]}`"}, 400)
        compute, scaling = body["compute"], body["compute"]["scaling"]
        place = (body["provider"]["region"], compute["instanceType"], compute["instanceSize"])
        if len(body["name"]) > 32:
            return Reply({"error": "name: must have at most 32 characters"}, 400)
        if body["type"] not in ("authenticated", "public", "private") or place not in _PRICES:
            return Reply({"error": "Invalid compute: no such instanceType in this region"}, 400)
        if scaling["minReplica"] > scaling["maxReplica"]:
            return Reply({"error": "minReplica must not be above maxReplica"}, 400)
        if self._hosting.deployed(body["name"]):
            return _REFUSALS.taken
        made = self._hosting.deploy(body["name"], _PRICES[place], max(1, scaling["minReplica"]), asked=body)
        made.details["halted"] = None
        return Reply(_shown(made, asked))


def _served(body: Json) -> dict[str, str]:
    """Return the models that an endpoint's command serves, and what each answers by."""
    words = shlex.split(body["model"]["command"][-1])
    options = {name: value for name, value in pairwise(words) if name.startswith("--")}
    fetched = f"{words[2]}@{options.get('--revision', 'main')}" if words[:2] == ["hf", "download"] else ""
    served = {options["--served-model-name"]: body["model"]["repository"]}
    if "--enable-lora" in words:
        name, _, folder = options["--lora-modules"].partition("=")
        served |= {name: fetched} if folder == options.get("--local-dir") else {}
    return served


def _state(one: SimulatedDeployment) -> str:
    if one.details.get("halted"):
        return str(one.details["halted"])
    if one.has_failed:
        return "failed"
    if one.is_running:
        return "running"
    return "pending" if time.time() < (one.created + min(one.ready_from, one.created + 5)) / 2 else "initializing"


def _shown(one: SimulatedDeployment, asked: Asked) -> Json:
    """Return an endpoint as the API shows it: without its secrets."""
    body, state, created = one.details["asked"], _state(one), _time(one.created)
    status: dict[str, Any] = {
        "state": state,
        "message": "Endpoint is " + state,
        "createdAt": created,
        "createdBy": {"id": "u1", "name": OWNER},
        "updatedAt": created,
        "updatedBy": {"id": "u1", "name": OWNER},
        "private": None,
        "readyReplica": one.replicas if state == "running" else 0,
        "targetReplica": 0 if one.details.get("halted") else one.replicas,
        "url": f"{asked.origin}{_ROOT}/serving/{one.name}" if state == "running" else None,
    }
    if state == "failed":
        status["errorMessage"] = "Endpoint failed to start: exit code 1"
    model = {name: value for name, value in body["model"].items() if name != "secrets"}
    shown = {"name": one.name, "type": body["type"], "accountId": None, "provider": body["provider"]}
    return shown | {"compute": body["compute"], "model": model, "status": status, "tags": body.get("tags", [])}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
