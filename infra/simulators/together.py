"""
Together AI, version 2 of its API: models and their uploads, endpoints and their deployments, and what they answer.

As the vendor's own library expects it. Assumed, since nothing is written on them: that names are taken once in a
project, that a deployment must have been stopped before it is deleted, and the words of refusals.
"""

import json
import secrets
import time
from datetime import UTC, datetime
from typing import Any

from infra.simulators import spoken
from infra.simulators.entrance import Entrance
from infra.simulators.exchange import App, Asked, Reply, application
from infra.simulators.hosting import Hosting, Json, Refusals, SimulatedDeployment, SimulatedThing
from infra.simulators.spoken import Speech

_ROOT = "/together"


def _error(status: int, message: str, kind: str, param: str | None = None) -> Reply:
    """Refuse, as Together does: codes are texts there."""
    return Reply({"error": {"message": message, "type": kind, "param": param, "code": str(status)}}, status)


_PROJECT = {"id": "proj-1", "name": "Default", "slug": "alice", "organization_id": "o", "organization_name": "Alice"}
_A_PAGE = 2
_REFUSALS = Refusals(
    no_credit=_error(402, "Credit limit exceeded, please add credits", "credit_limit"),
    no_room=_error(400, "No capacity for the requested hardware in any region", "invalid_request_error"),
    taken=_error(409, "A resource with this name already exists in the project", "conflict"),
    broken=_error(500, "internal error", "server_error"),
)
_RATES = {"1x_nvidia_h100_80gb": 3.36, "2x_nvidia_h100_80gb": 6.72}
_PROFILES = [
    {
        "config": f"cr_{name}",
        "gpuType": "nvidia_h100_80gb",
        "gpuCount": int(name[0]),
        "adapterMode": "ADAPTER_MODE_DISABLED",
        "profileId": name,
        "parallelism": "tp",
        "quantization": "none",
    }
    for name in _RATES
]
_BASE = {"id": "sm_1", "name": "org/model", "baseModel": "org/model", "baseModelId": "ml_base", "status": "SUPPORTED"}
_DYNAMIC = _PROFILES[0] | {"config": "cr_dynamic", "adapterMode": "ADAPTER_MODE_DYNAMIC"}


def create_together(hosting: Hosting) -> App:
    """Make the application; it answers below ``/together`` or at the root."""
    too_many = _error(429, "Too many requests", "rate_limit")
    entrance = Entrance("together", hosting, Reply(too_many.body, 429, {"Retry-After": "1"}))
    project = _Project(hosting)

    async def reply(asked: Asked) -> Reply:
        if (refused := entrance.reply(asked)) is not None:
            return refused
        match asked.method, asked.path.removeprefix(_ROOT).strip("/").split("/"):
            case "GET", ["v1", "projects"]:
                return _page([_PROJECT], asked)
            case "GET", ["v2", "supported-models"]:
                profiles = {"deploymentProfiles": [_DYNAMIC, *_PROFILES]}
                return _page([_BASE | profiles] if asked.query.get("search", "") in "org/model" else [], asked)
            case "GET", ["v2", "public", "inference-instance-types"]:
                return Reply({"object": "list", "data": [_instance(name) for name in _RATES]})
            case "POST", ["v1", *_]:
                return project.answer(asked)
            case method, ["v2", "projects", "proj-1", *rest]:
                return await project.act(method, rest, asked)
            case _:
                return _error(404, "not found", "not_found")

    return application(reply)


class _Project:
    """What can be done in the one project."""

    def __init__(self, hosting: Hosting):
        self._hosting = hosting
        self._speech = Speech()

    async def act(self, method: str, rest: list[str], asked: Asked) -> Reply:
        """Do what is asked of the project's resources."""
        body: Json = json.loads(asked.content or b"{}")
        match method, rest:
            case "GET", ["models" | "endpoints" as kind]:
                return _page([_shown(one) for one in self._hosting.listed_things(kind)], asked)
            case "POST", ["models"]:
                if body["baseModelId"] != _BASE["baseModelId"] or body["type"] != "adapter":
                    return _error(400, "baseModelId is not supported", "invalid_request_error")
                return await self._create("models", body)
            case "POST", ["endpoints"]:
                return await self._create("endpoints", body)
            case "GET", ["models", "uploads"]:
                return _page([self._upload(one) for one in self._hosting.listed_things("uploads")], asked)
            case "POST", ["models", "uploads"]:
                return await self._fetch(body)
            case "DELETE", ["models" | "endpoints" as kind, thing_id]:
                return self._delete(kind, thing_id)
            case "GET", ["endpoints", endpoint_id, "analytics"]:
                return self._analytics(endpoint_id)
            case method, ["endpoints", endpoint_id, "deployments", *more]:
                return await self._of_endpoint(method, endpoint_id, more, body, asked)
            case _:
                return _error(404, "not found", "not_found")

    def answer(self, asked: Asked) -> Reply:
        """Answer for the model that a request names, as PROJECT/ENDPOINT/DEPLOYMENT."""
        body: Json = json.loads(asked.content)
        slug, _, name = str(body.get("model")).partition("/")
        found = self._hosting.deployed(name.partition("/")[2])
        if found is None or slug != _PROJECT["slug"] or not found.is_running:
            return _error(404, f"Unable to access model {body.get('model')}.", "invalid_request_error", "model")
        path = asked.path.removeprefix(_ROOT).removeprefix("/v1")
        self._hosting.count(found.details["endpoint"])
        return _as_there(spoken.answer(path, body, self._speech, found.details["content"]))

    def _analytics(self, endpoint_id: str) -> Reply:
        endpoint = self._thing("endpoints", endpoint_id)
        if endpoint is None:
            return _error(404, "endpoint not found", "not_found")
        requests, latency = self._hosting.lately(endpoint.name), {"latencyP50Ms": 250.0, "latencyP99Ms": 300.0}
        counted = {"totalRequests": str(requests), "requestsPerSecond": requests / 60}
        metrics = {"endpointId": endpoint_id, "requestMetrics": counted, "latencyMetrics": latency}
        return Reply({"endpointId": endpoint_id, "metrics": metrics})

    async def _create(self, kind: str, body: Json) -> Reply:
        def make() -> Reply:
            if self._hosting.kept(kind, body["name"]):
                return _REFUSALS.taken
            made = self._hosting.keep(kind, body["name"], id=f"{kind[:2]}_{secrets.token_hex(6)}", asked=body)
            return Reply(_shown(made))

        return await self._hosting.creating(make, _REFUSALS)

    async def _fetch(self, body: Json) -> Reply:
        model = self._thing("models", body["modelId"])
        if model is None:
            return _error(404, "model not found", "not_found")

        def make() -> Reply:
            made = self._hosting.keep("uploads", model.name, id=f"ru_{secrets.token_hex(6)}", asked=body)
            made.details["ready"] = time.time() + self._hosting.boot_seconds / 2
            model.content = body["remoteUrl"]
            return Reply(self._upload(made))

        return await self._hosting.creating(make, _REFUSALS)

    async def _of_endpoint(self, method: str, endpoint_id: str, more: list[str], body: Json, asked: Asked) -> Reply:
        endpoint = self._thing("endpoints", endpoint_id)
        if endpoint is None:
            return _error(404, "endpoint not found", "not_found")
        if not more and method == "GET":
            there = [one for one in self._hosting.listed_deployments() if one.details["endpoint"] == endpoint.name]
            return _page([_deployment(one) for one in there], asked)
        if not more and method == "POST":
            make = self._deploying(endpoint, body)
            return await self._hosting.creating(make, _REFUSALS, bills=True)
        found = next((one for one in self._hosting.deployments if one.details["id"] == more[0] and not one.gone), None)
        if found is None:
            return _error(404, "deployment not found", "not_found")
        if method == "PATCH" and body.get("autoscaling", {}).get("maxReplicas") == 0:
            found.details["stopped"] = True
        elif method == "DELETE":
            if not found.details["stopped"]:
                return _error(409, "the deployment must be stopped first", "conflict")
            self._hosting.remove(found)
        return Reply(_deployment(found))

    def _deploying(self, endpoint: SimulatedThing, body: Json) -> Any:
        def make() -> Reply:
            model = self._thing("models", str(body.get("model")).rpartition("/")[2])
            config = next((one for one in _PROFILES if one["config"] == body.get("config")), None)
            if model is None or config is None:
                return _error(400, "model or config is not known", "invalid_request_error")
            if self._hosting.deployed(body["name"]):
                return _REFUSALS.taken
            least = body["autoscaling"].get("minReplicas", 1)
            made = self._hosting.deploy(
                body["name"],
                _RATES[str(config["profileId"])],
                max(1, least),
                id=f"dp_{secrets.token_hex(6)}",
                endpoint=endpoint.name,
                content=model.content,
                hardware=config["profileId"],
                stopped=False,
                asked=body,
            )
            return Reply(_deployment(made))

        return make

    def _delete(self, kind: str, thing_id: str) -> Reply:
        found = self._thing(kind, thing_id)
        if found is None:
            return _error(404, "not found", "not_found")
        if kind == "endpoints" and any(
            one.details["endpoint"] == found.name and not one.gone for one in self._hosting.deployments
        ):
            return _error(409, "the endpoint has deployments", "conflict")
        for upload in self._hosting.listed_things("uploads"):
            if upload.details["asked"]["modelId"] == thing_id:
                self._hosting.remove(upload)
        self._hosting.remove(found)
        return Reply({})

    def _thing(self, kind: str, thing_id: str) -> SimulatedThing | None:
        there = [one for one in self._hosting.things if one.kind == kind and one.gone is None]
        return next((one for one in there if one.details["id"] == thing_id), None)

    def _upload(self, one: SimulatedThing) -> Json:
        asked, shown = one.details["asked"], {"id": one.details["id"], "projectId": _PROJECT["id"]}
        state = "SUCCEEDED" if time.time() >= one.details["ready"] else "RUNNING"
        shown |= {"modelId": asked["modelId"], "remoteUrl": asked["remoteUrl"], "createdAt": _time(time.time())}
        return shown | {"status": f"REMOTE_UPLOAD_STATUS_{state}", "statusMessage": None}


def _as_there(reply: Reply) -> Reply:
    """Return an answer of OpenAI's in Together's own words."""
    if not isinstance(reply.body, dict):
        return reply
    body: Json = dict(reply.body)
    if "error" in body:
        return Reply({"error": body["error"] | {"code": str(body["error"]["code"])}}, reply.status)
    body |= {"prompt": [], "object": body["object"].replace("_", ".")}
    for choice in body["choices"]:
        parts: Json = choice.pop("logprobs") or {}
        content = parts.get("content") or []
        if parts:
            choice["logprobs"] = {
                "tokens": parts.get("tokens") or [one["token"] for one in content],
                "token_logprobs": parts.get("token_logprobs") or [one["logprob"] for one in content],
            }
    return Reply(body)


def _shown(one: SimulatedThing) -> Json:
    shown: Json = {"id": one.details["id"], "name": f"{_PROJECT['slug']}/{one.name}", "projectId": _PROJECT["id"]}
    if one.kind == "models":
        base = {"baseModel": _BASE["baseModel"], "baseModelId": _BASE["baseModelId"]}
        return shown | base | {"visibility": "VISIBILITY_PRIVATE", "weights": {"type": "WEIGHTS_TYPE_ADAPTER"}}
    return shown | {"etag": "e1", "endpointType": "ENDPOINT_TYPE_DEDICATED", "deployments": [], "trafficSplit": []}


def _deployment(one: SimulatedDeployment) -> Json:
    state = "STOPPED" if one.details["stopped"] else "FAILED" if one.has_failed else "READY"
    state = state if state != "READY" or one.is_running else "PROVISIONING"
    ready = one.replicas if state == "READY" else 0
    status = {"state": f"DEPLOYMENT_STATE_{state}", "message": f"{state.lower()}", "readyReplicas": ready}
    return {
        "id": one.details["id"],
        "name": one.name,
        "endpointId": one.details["endpoint"],
        "projectId": _PROJECT["id"],
        "model": one.details["asked"]["model"],
        "config": one.details["asked"]["config"],
        "hardware": one.details["hardware"],
        "autoscaling": one.details["asked"]["autoscaling"],
        "desiredReplicas": 0 if one.details["stopped"] else one.replicas,
        "trafficMode": "TRAFFIC_MODE_LIVE",
        "status": status,
        "etag": "e1",
        "createdAt": _time(one.created),
        "updatedAt": _time(one.created),
    }


def _instance(name: str) -> Json:
    count, _, gpu = name.partition("x_")
    shown = {"id": f"it_{name}", "name": name, "description": name, "gpuType": gpu, "gpuCount": int(count)}
    return shown | {"gpuMemoryGib": 80, "priceCentsPerHour": round(_RATES[name] * 100), "regions": []}


def _page(rows: list[Any], asked: Asked) -> Reply:
    """Answer with a page: of the limit, and never more than a few, so that pages are turned."""
    begin = int(asked.query.get("after") or 0)
    end = begin + min(_A_PAGE, int(asked.query.get("limit") or _A_PAGE))
    return Reply({"object": "list", "data": rows[begin:end], "next_cursor": str(end) if end < len(rows) else None})


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
