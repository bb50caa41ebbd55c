"""
Replicate: deployments of a Cog model that takes a LoRA's address among its inputs, and their predictions.

As its OpenAPI document has it. Assumed: the words of refusals, and that a deployment with instances is not deleted.
"""

import json
import secrets
import time
from datetime import UTC, datetime
from typing import Any

from infra.simulators.entrance import Entrance
from infra.simulators.exchange import App, Asked, Reply, application
from infra.simulators.hosting import Hosting, Json, Refusals, SimulatedDeployment
from infra.simulators.spoken import Speech

OWNER, MODEL, VERSION = "alice", "org/llm-with-lora", "a" * 64
INPUT = "lora_weights"
_ROOT = "/replicate"
_A_PAGE = 2
_RATES = {"gpu-l40s": 3.51, "gpu-a100-large": 5.04}


def _problem(status: int, title: str, detail: str, **headers: str) -> Reply:
    told = {"Content-Type": "application/problem+json", **headers}
    return Reply({"title": title, "detail": detail, "status": status}, status, told)


_MISSING = _problem(404, "Not found", "The requested resource could not be found.")
_REFUSALS = Refusals(
    no_credit=_problem(402, "Insufficient credit", "You have insufficient credit to run this model."),
    no_room=_problem(422, "Unprocessable", "There is no capacity for this hardware at the moment."),
    taken=_problem(409, "Conflict", "A deployment with that name exists already."),
    broken=_problem(500, "Internal server error", "Something went wrong."),
)
_INPUTS = {"prompt": "string", "max_new_tokens": "integer", "temperature": "number", INPUT: "string"}


def create_replicate(hosting: Hosting) -> App:
    """Make the application; it answers below ``/replicate``, in the place of ``/v1``."""
    too_many = _problem(429, "Too many requests", "Request was throttled.", **{"Retry-After": "1"})
    entrance, deployments = Entrance("replicate", hosting, too_many), _Deployments(hosting)

    async def reply(asked: Asked) -> Reply:
        if (refused := entrance.reply(asked)) is not None:
            return refused
        match asked.method, asked.path.removeprefix(_ROOT).strip("/").split("/"):
            case "GET", ["account"]:
                return Reply({"type": "user", "username": OWNER, "name": "Alice"})
            case "GET", ["hardware"]:
                return Reply([{"name": sku, "sku": sku} for sku in _RATES])
            case "GET", ["models", owner, name, "versions", version]:
                return _version() if (f"{owner}/{name}", version) == (MODEL, VERSION) else _MISSING
            case "GET", ["deployments"]:
                return deployments.page(asked)
            case "POST", ["deployments"]:
                body = json.loads(asked.content)
                return await hosting.creating(lambda: deployments.create(body), _REFUSALS, bills=True)
            case method, ["deployments", owner, name, *rest] if owner == OWNER:
                return deployments.act(method, name, rest, asked)
            case "GET", ["predictions", prediction_id]:
                return deployments.prediction(prediction_id)
            case _:
                return _MISSING

    return application(reply)


class _Deployments:
    """What can be done to deployments."""

    def __init__(self, hosting: Hosting):
        self._hosting = hosting
        self._speech = Speech()
        self._predictions: dict[str, Json] = {}

    def page(self, asked: Asked) -> Reply:
        """Return deployments; never more than a few, so that pages are turned."""
        rows = [_shown(one) for one in self._hosting.listed_deployments()]
        begin = int(asked.query.get("cursor") or 0)
        more = begin + _A_PAGE < len(rows)
        following = f"{asked.origin}{asked.path}?cursor={begin + _A_PAGE}" if more else None
        return Reply({"next": following, "previous": None, "results": rows[begin : begin + _A_PAGE]})

    def create(self, body: Json) -> Reply:
        """Create a deployment."""
        if body.get("hardware") not in _RATES:
            return _problem(422, "Unprocessable", f"hardware: {body.get('hardware')} is not a valid sku")
        if (body.get("model"), body.get("version")) != (MODEL, VERSION):
            return _problem(422, "Unprocessable", "version: does not exist")
        if not 0 <= body["min_instances"] <= 5 or not 0 <= body["max_instances"] <= 20:
            return _problem(422, "Unprocessable", "min_instances or max_instances is out of range")
        if self._hosting.deployed(body["name"]):
            return _REFUSALS.taken
        rate = _RATES[str(body["hardware"])]
        return Reply(_shown(self._hosting.deploy(body["name"], rate, max(1, body["min_instances"]), asked=body)))

    def act(self, method: str, name: str, rest: list[str], asked: Asked) -> Reply:
        """Show, change or delete a deployment, or have it predict."""
        found = self._hosting.deployed(name)
        if found is None:
            return _MISSING
        match method, rest:
            case "GET", []:
                return Reply(_shown(found))
            case "PATCH", []:
                found.details["asked"] |= json.loads(asked.content)
                return Reply(_shown(found))
            case "DELETE", [] if found.details["asked"]["max_instances"] > 0:
                return _problem(400, "Bad request", "The deployment must be offline before it is deleted.")
            case "DELETE", []:
                self._hosting.remove(found)
                return Reply(b"", 204)
            case "POST", ["predictions"]:
                return self._predict(found, json.loads(asked.content))
            case _:
                return _MISSING

    def prediction(self, prediction_id: str) -> Reply:
        """Return a prediction, which has ended when it is looked at a second time."""
        known = self._predictions.get(prediction_id)
        if known is None:
            return _MISSING
        said, _ = self._speech.say(known["content"], known["input"]["prompt"], known["input"]["max_new_tokens"])
        done = {"status": "succeeded", "output": said.tokens, "metrics": {"predict_time": 0.1}}
        return Reply(_prediction(known) | done)

    def _predict(self, found: SimulatedDeployment, body: Json) -> Reply:
        given = body["input"]
        if unknown := set(given) - set(_INPUTS):
            return _problem(422, "Input validation failed", f"- input: unknown field {sorted(unknown)[0]}")
        content = given.get(INPUT, "base")
        known = {"id": secrets.token_hex(13), "input": given, "content": content, "deployment": found.name}
        self._predictions[known["id"]] = known
        return Reply(_prediction(known), 201)


def _version() -> Reply:
    properties = {name: {"type": kind, "title": name} for name, kind in _INPUTS.items()}
    schemas = {"Input": {"type": "object", "properties": properties, "required": ["prompt"]}}
    shown = {"id": VERSION, "created_at": _time(0.0), "cog_version": "0.16.0"}
    return Reply(shown | {"openapi_schema": {"openapi": "3.0.2", "components": {"schemas": schemas}}})


def _shown(one: SimulatedDeployment) -> Json:
    asked = one.details["asked"]
    configuration = {name: asked[name] for name in ("hardware", "min_instances", "max_instances")}
    release: dict[str, Any] = {
        "number": 1,
        "model": asked["model"],
        "version": asked["version"],
        "created_at": _time(one.created),
        "created_by": {"type": "user", "username": OWNER, "name": "Alice"},
        "configuration": configuration,
    }
    return {"owner": OWNER, "name": one.name, "current_release": release}


def _prediction(known: Json) -> Json:
    where = f"https://api.replicate.com/v1/predictions/{known['id']}"
    return {
        "id": known["id"],
        "model": MODEL,
        "version": VERSION,
        "deployment": f"{OWNER}/{known['deployment']}",
        "input": known["input"],
        "output": None,
        "error": None,
        "logs": "",
        "status": "starting",
        "created_at": _time(time.time()),
        "data_removed": False,
        "urls": {"get": where, "cancel": f"{where}/cancel", "web": f"https://replicate.com/p/{known['id']}"},
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
