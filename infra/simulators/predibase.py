"""
Predibase: repositories of adapters, deployments, and LoRAX as it answers there.

As the vendor's last library expects it; nobody knows whether the real one still does. Assumed: the words of refusals.
"""

import hashlib
import json
import secrets
from typing import Any

from infra.simulators.entrance import Entrance
from infra.simulators.exchange import App, Asked, Reply, application
from infra.simulators.hosting import Hosting, Json, Refusals, SimulatedDeployment
from infra.simulators.lorax import answer, error
from infra.simulators.spoken import Speech

_ROOT, _TENANT = "/predibase", "acme01"
_FILES = ("adapter_config.json", "adapter_model.bin", "adapter_model.safetensors")
_RATES = {"a10_24gb_100": 2.6, "a100_80gb_100": 4.8}
_HEADERS = {"x-ms-blob-type": "BlockBlob"}


def _error(status: int, message: str) -> Reply:
    return Reply({"error": message}, status)


_MISSING = _error(404, "not found")
_REFUSALS = Refusals(
    no_credit=_error(402, "insufficient credits"),
    no_room=_error(400, "no capacity for accelerator a10_24gb_100"),
    taken=_error(409, "a resource with this name already exists"),
    broken=_error(500, "internal server error"),
)


def create_predibase(hosting: Hosting) -> App:
    """Make the application; it answers below ``/predibase``, deployments included."""
    entrance = Entrance("predibase", hosting, Reply({"error": "rate limit exceeded"}, 429, {"Retry-After": "1"}))
    tenant = _Tenant(hosting)

    async def reply(asked: Asked) -> Reply:
        path = asked.path.removeprefix(_ROOT)
        if path.startswith("/stored/"):
            return tenant.store(path, asked)
        if (refused := entrance.reply(asked)) is not None:
            return refused
        match asked.method, path.strip("/").split("/"):
            case "GET", ["v1", "users", "current"]:
                return Reply({"id": 1, "username": "alice", "tenant": {"name": "Acme", "shortCode": _TENANT}})
            case "POST", [code, "deployments", "v2", "llms", name, "v1", *_] if code == _TENANT:
                return tenant.answer(name, path.partition(f"/{name}/v1")[2], json.loads(asked.content))
            case method, ["v2", *rest]:
                return await tenant.act(method, rest, asked)
            case _:
                return _MISSING

    return application(reply)


class _Tenant:
    """What can be done in the one tenant."""

    def __init__(self, hosting: Hosting):
        self._hosting = hosting
        self._speech = Speech()

    async def act(self, method: str, rest: list[str], asked: Asked) -> Reply:
        """Do what is asked of deployments, repositories and adapters."""
        body: Json = json.loads(asked.content or b"{}")
        match method, rest:
            case "GET", ["deployments"]:
                return Reply({"data": [_shown(one) for one in self._hosting.listed_deployments()]})
            case "POST", ["deployments"]:
                return await self._hosting.creating(lambda: self._deploy(body), _REFUSALS, bills=True)
            case _, ["deployments", name]:
                return self._of_deployment(method, name)
            case "GET", ["repos"]:
                names = [one.name for one in self._hosting.listed_things("repo")]
                return Reply({"data": {"repos": [{"uuid": name, "name": name} for name in names]}})
            case "POST", ["repos"]:
                return await self._hosting.creating(lambda: self._make_repository(body), _REFUSALS)
            case _, ["repos", name, *more]:
                return self._of_repository(method, name, more)
            case "POST", ["adapters", "upload"]:
                return self._begin(body, asked)
            case "PUT", ["adapters", "upload"]:
                return self._finish(body)
            case _:
                return _MISSING

    def store(self, path: str, asked: Asked) -> Reply:
        """Take a file at the address that was signed for it."""
        _, _, token, file = path.split("/")
        found = self._by_token(token)
        if found is None or asked.method != "PUT" or asked.headers.get("x-ms-blob-type") != "BlockBlob":
            return Reply(b"<Error/>", 403)
        found.details["uploads"][token][file] = hashlib.sha256(asked.content).hexdigest()
        return Reply(b"", 201)

    def answer(self, name: str, path: str, body: Json) -> Reply:
        """Answer as LoRAX does: the base model by its own name, adapters as REPOSITORY/VERSION."""
        found = self._hosting.deployed(name)
        if found is None or not found.is_running:
            return error(503, "deployment is not ready", "not_ready")
        repository, _, version = str(body.get("model")).partition("/")
        kept = self._hosting.kept("repo", repository)
        if body.get("model") == found.details["asked"]["config"]["baseModel"]:
            return answer(path, body, self._speech, "base")
        if kept is None or version != "1" or not kept.details["versions"]:
            return error(422, f"adapter {body.get('model')} not found", "validation")
        return answer(path, body, self._speech, json.dumps(kept.details["versions"][0], sort_keys=True))

    def _deploy(self, body: Json) -> Reply:
        config = body["config"]
        kind = config.get("accelerator", "a10_24gb_100")
        if kind not in _RATES:
            return _error(400, f"accelerator {kind} does not exist")
        if self._hosting.deployed(body["name"]):
            return _REFUSALS.taken
        return Reply(
            {
                "data": _shown(
                    self._hosting.deploy(body["name"], _RATES[kind], max(1, config["minReplicas"]), asked=body)
                )
            }
        )

    def _of_deployment(self, method: str, name: str) -> Reply:
        found = self._hosting.deployed(name)
        if found is None:
            return _MISSING
        if method == "DELETE":
            self._hosting.remove(found)
        return Reply({"data": _shown(found)})

    def _make_repository(self, body: Json) -> Reply:
        if self._hosting.kept("repo", body["name"]):
            return Reply({"uuid": "r", "name": body["name"]}) if body.get("existsOk") else _REFUSALS.taken
        self._hosting.keep("repo", body["name"], versions=[], uploads={})
        return Reply({"uuid": "r", "name": body["name"]})

    def _of_repository(self, method: str, name: str, more: list[str]) -> Reply:
        found = self._hosting.kept("repo", name)
        if found is None:
            return _MISSING
        match method, more:
            case "GET", []:
                return Reply({"uuid": "r", "name": name, "versions": []})
            case "DELETE", []:
                self._hosting.remove(found)
                return Reply({})
            case "GET", ["version", tag] if tag.isdigit() and 0 < int(tag) <= len(found.details["versions"]):
                return Reply({"repo": name, "tag": int(tag), "archived": False, "baseModel": "org/model"})
            case _:
                return _MISSING

    def _begin(self, body: Json, asked: Asked) -> Reply:
        found = self._hosting.kept("repo", body["repo"])
        if found is None:
            return _MISSING
        token = secrets.token_hex(8)
        found.details["uploads"][token] = {}
        urls = {file: f"{asked.origin}{_ROOT}/stored/{token}/{file}" for file in _FILES}
        return Reply({"presignedUrls": urls, "uploadToken": token, "requiredHeaders": _HEADERS})

    def _finish(self, body: Json) -> Reply:
        found = self._by_token(body["uploadToken"])
        files = found.details["uploads"].pop(body["uploadToken"]) if found else {}
        if found is None or not {"adapter_config.json", "adapter_model.safetensors"} <= set(files):
            return _error(400, "the upload is not complete")
        found.details["versions"].append(files)
        return Reply({"repo": found.name, "tag": len(found.details["versions"]), "archived": False})

    def _by_token(self, token: str) -> Any:
        there = (one for one in self._hosting.things if one.kind == "repo" and not one.gone)
        return next((one for one in there if token in one.details["uploads"]), None)


def _shown(one: SimulatedDeployment) -> Json:
    config = one.details["asked"]["config"]
    status = "ready" if one.is_running else "failed" if one.has_failed else "initializing"
    return {
        "name": one.name,
        "uuid": one.name,
        "type": "dedicated",
        "description": one.details["asked"].get("description"),
        "status": status,
        "currentReplicas": one.replicas if status == "ready" else 0,
        "model": {"name": config["baseModel"], "maxInputLength": 4095},
        "accelerator": {"id": config.get("accelerator", "a10_24gb_100")},
        "config": config,
        "usesGuaranteedCapacity": False,
    }
