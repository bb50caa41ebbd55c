"""
Fireworks AI: models and their files, deployments, what is deployed on them, and what it answers.

As the vendor's own library expects it. Assumed, since nothing is written on them: the words of refusals, and that
machines with an adapter on them are not deleted.
"""

import hashlib
import json
import secrets
from typing import Any

from infra.simulators.entrance import Entrance
from infra.simulators.exchange import App, Asked, Reply, application
from infra.simulators.hosting import Hosting, Json, Refusals, SimulatedDeployment, SimulatedThing
from infra.simulators.spoken import Speech, answer, error

_ROOT, _ACCOUNT = "/fireworks", "accounts/alice"
_A_PAGE = 2
_BASE = "accounts/fireworks/models/model-8b"
_BASES = [
    {
        "name": "accounts/fireworks/models/old",
        "huggingFaceUrl": "https://huggingface.co/org/old",
        "supportsLora": False,
    },
    {"name": _BASE, "huggingFaceUrl": "https://huggingface.co/org/model", "supportsLora": True, "state": "READY"},
]
_RATES = {"NVIDIA_H100_80GB": 4.0, "NVIDIA_A100_80GB": 2.9}


def _status(status: int, code: int, message: str) -> Reply:
    return Reply({"code": code, "message": message, "details": []}, status)


_MISSING = _status(404, 5, "not found")
_REFUSALS = Refusals(
    no_credit=_status(412, 9, "account is suspended: add a payment method"),
    no_room=_status(400, 9, "no capacity for accelerator type NVIDIA_H100_80GB"),
    taken=_status(409, 6, "already exists"),
    broken=_status(500, 13, "internal error"),
)


def create_fireworks(hosting: Hosting) -> App:
    """Make the application; it answers below ``/fireworks``."""
    too_many = Reply(_status(429, 8, "rate limit exceeded").body, 429, {"Retry-After": "1"})
    entrance, account = Entrance("fireworks", hosting, too_many), _Account(hosting)

    async def reply(asked: Asked) -> Reply:
        path = asked.path.removeprefix(_ROOT)
        if path.startswith("/stored/"):
            return account.store(path, asked)
        if (refused := entrance.reply(asked)) is not None:
            return refused
        match asked.method, path.strip("/").split("/"):
            case "GET", ["v1", "accounts"]:
                return _page("accounts", [{"name": _ACCOUNT, "email": "a@example.com", "state": "READY"}], asked)
            case "GET", ["v1", "accounts", "fireworks", "models"]:
                return _page("models", _BASES, asked)
            case "POST", ["inference", "v1", *_]:
                return account.answer(path.removeprefix("/inference/v1"), json.loads(asked.content))
            case method, ["v1", "accounts", "alice", *rest]:
                return await account.act(method, rest, asked)
            case _:
                return _MISSING

    return application(reply)


class _Account:
    """What can be done in the one account."""

    def __init__(self, hosting: Hosting):
        self._hosting = hosting
        self._speech = Speech()

    async def act(self, method: str, rest: list[str], asked: Asked) -> Reply:
        """Do what is asked of the account's resources."""
        body: Json = json.loads(asked.content or b"{}")
        match method, rest:
            case "GET", ["models"]:
                return _page("models", [_model(one) for one in self._hosting.listed_things("models")], asked)
            case "POST", ["models"]:
                return await self._hosting.creating(lambda: self._create_model(body), _REFUSALS)
            case _, ["models", name]:
                return self._of_model(method, name, body, asked)
            case "GET", ["metrics"]:
                return Reply(self._metrics().encode(), headers={"Content-Type": "text/plain; version=0.0.4"})
            case "GET", ["deployments"]:
                shown = [_deployment(one) for one in self._hosting.listed_deployments()]
                return _page("deployments", shown, asked)
            case "POST", ["deployments"]:
                name = asked.query["deploymentId"]
                return await self._hosting.creating(lambda: self._create(name, body), _REFUSALS, bills=True)
            case _, ["deployments", name]:
                return self._of_deployment(method, name)
            case "GET", ["deployedModels"]:
                shown = [self._deployed(one) for one in self._hosting.listed_things("deployedModels")]
                return _page("deployedModels", shown, asked)
            case "POST", ["deployedModels"]:
                return await self._hosting.creating(lambda: self._load(body), _REFUSALS)
            case "DELETE", ["deployedModels", loaded_id]:
                there = self._hosting.things
                for one in (one for one in there if one.details.get("id") == loaded_id and not one.gone):
                    self._hosting.remove(one)
                    return Reply({})
                return _MISSING
            case _:
                return _MISSING

    def store(self, path: str, asked: Asked) -> Reply:
        """Take a file at the address that was signed for it."""
        _, _, name, file = path.split("/")
        model = self._hosting.kept("models", name)
        if model is None or asked.query.get("signature") != model.details["signature"] or asked.method != "PUT":
            return Reply(b"<Error>SignatureDoesNotMatch</Error>", 403)
        if len(asked.content) != int(model.details["sizes"].get(file, -1)):
            return Reply(b"<Error>MalformedRequest</Error>", 400)
        model.details["files"][file] = hashlib.sha256(asked.content).hexdigest()
        return Reply(b"")

    def answer(self, path: str, body: Json) -> Reply:
        """Answer for MODEL#DEPLOYMENT: an adapter that is loaded there, or its base."""
        model, _, place = str(body.get("model")).partition("#")
        found = self._hosting.deployed(place.rpartition("/")[2])
        if found is None or not found.is_running:
            return error(404, "Model not found, inaccessible, and/or not deployed", "NOT_FOUND")
        content = {found.details["asked"]["baseModel"]: "base"}
        for one in self._hosting.things:
            asked = one.details["asked"] if one.kind == "deployedModels" and not one.gone else {}
            kept = self._hosting.kept("models", one.name)
            if asked and kept and asked["deployment"] == place:
                content[asked["model"]] = json.dumps(kept.details["files"], sort_keys=True)
        if model not in content:
            return error(404, "Model not found, inaccessible, and/or not deployed", "NOT_FOUND")
        self._hosting.count(found.name)
        return answer(path, body, self._speech, content[model])

    def _metrics(self) -> str:
        """Say how busy each deployment is; every answer took between 200 and 300 ms."""
        lines: list[str] = []
        for one in self._hosting.listed_deployments():
            rate, labels = self._hosting.lately(one.name) / 60, f'deployment_id="{one.name}",deployment_account="alice"'
            lines.append(f"request_counter_total:sum_by_deployment{{{labels}}} {rate}")
            for upper, share in ("200.0", 0), ("300.0", rate), ("+Inf", rate):
                lines.append(f'latency_overall_ms_bucket:sum_by_deployment{{{labels},le="{upper}"}} {share}')
        return "\n".join([*lines, ""])

    def _create_model(self, body: Json) -> Reply:
        details, name = body["model"]["peftDetails"], body["modelId"]
        if self._hosting.kept("models", name):
            return _REFUSALS.taken
        if body["model"]["kind"] != "HF_PEFT_ADDON" or details["baseModel"] != _BASE or not 4 <= details["r"] <= 64:
            return _status(400, 3, "invalid peft_details")
        given = {"signature": secrets.token_hex(8), "sizes": {}, "files": {}, "state": "UPLOADING", "asked": body}
        return Reply(_model(self._hosting.keep("models", name, **given)))

    def _of_model(self, method: str, called: str, body: Json, asked: Asked) -> Reply:
        name, _, verb = called.partition(":")
        model = self._hosting.kept("models", name)
        if model is None:
            return _MISSING
        match method, verb:
            case "GET", "":
                return Reply(_model(model))
            case "POST", "getUploadEndpoint":
                model.details["sizes"] = body["filenameToSize"]
                where, signature = f"{asked.origin}{_ROOT}/stored/{name}", model.details["signature"]
                urls = {file: f"{where}/{file}?signature={signature}" for file in body["filenameToSize"]}
                return Reply({"filenameToSignedUrls": urls})
            case "GET", "validateUpload":
                if set(model.details["files"]) != {"adapter_config.json", "adapter_model.safetensors"}:
                    return _status(400, 3, "adapter_config.json or the weights are missing")
                model.details["state"] = "READY"
                return Reply({"warnings": []})
            case "DELETE", "" if self._loaded(f"models/{name}"):
                return _status(412, 9, "the model is deployed")
            case "DELETE", "":
                self._hosting.remove(model)
                return Reply({})
            case _:
                return _MISSING

    def _create(self, name: str, body: Json) -> Reply:
        kind = body.get("acceleratorType", "NVIDIA_H100_80GB")
        if kind not in _RATES or not body.get("enableAddons") or body["baseModel"] != _BASE:
            return _status(400, 3, f"invalid accelerator type or base model: {kind}")
        if self._hosting.deployed(name):
            return _REFUSALS.taken
        rate = _RATES[kind] * body.get("acceleratorCount", 1)
        return Reply(_deployment(self._hosting.deploy(name, rate, max(1, body["minReplicaCount"]), asked=body)))

    def _of_deployment(self, method: str, name: str) -> Reply:
        found = self._hosting.deployed(name)
        if found is None:
            return _MISSING
        if method == "DELETE":
            if self._loaded(f"deployments/{name}"):
                return _status(412, 9, "the deployment has deployed models")
            self._hosting.remove(found)
            return Reply({})
        return Reply(_deployment(found))

    def _load(self, body: Json) -> Reply:
        name = body["model"].rpartition("/")[2]
        model, machines = self._hosting.kept("models", name), body["deployment"].rpartition("/")[2]
        if model is None or model.details["state"] != "READY" or self._hosting.deployed(machines) is None:
            return _status(400, 9, "the model or the deployment is not ready")
        if self._hosting.kept("deployedModels", name):
            return _REFUSALS.taken
        made = self._hosting.keep("deployedModels", name, id=f"{name}-{secrets.token_hex(3)}", asked=body)
        return Reply(self._deployed(made))

    def _loaded(self, what: str) -> bool:
        there = [one.details["asked"] for one in self._hosting.things if one.kind == "deployedModels" and not one.gone]
        return any(f"{_ACCOUNT}/{what}" in (asked["model"], asked["deployment"]) for asked in there)

    def _deployed(self, one: SimulatedThing) -> Json:
        asked = one.details["asked"]
        machines = self._hosting.deployed(asked["deployment"].rpartition("/")[2])
        state = "DEPLOYED" if machines is not None and machines.is_running else "DEPLOYING"
        return {"name": f"{_ACCOUNT}/deployedModels/{one.details['id']}", "state": state, **asked, "status": {}}


def _model(one: SimulatedThing) -> Json:
    shown = {"name": f"{_ACCOUNT}/models/{one.name}", "state": one.details["state"]}
    return shown | one.details["asked"]["model"] | {"status": {"code": "OK", "message": ""}}


def _deployment(one: SimulatedDeployment) -> Json:
    asked, state = one.details["asked"], "READY" if one.is_running else "FAILED" if one.has_failed else "CREATING"
    message = "The model could not be loaded: out of memory" if state == "FAILED" else ""
    shown = {"name": f"{_ACCOUNT}/deployments/{one.name}", "state": state, **asked}
    stats = {"readyReplicaCount": one.replicas if state == "READY" else 0}
    return shown | {"replicaCount": one.replicas, "replicaStats": stats, "status": {"message": message}}


def _page(key: str, rows: list[Any], asked: Asked) -> Reply:
    """Answer with a page: never more than a few, so that pages are turned."""
    begin = int(asked.query.get("pageToken") or 0)
    more = str(begin + _A_PAGE) if begin + _A_PAGE < len(rows) else ""
    return Reply({key: rows[begin : begin + _A_PAGE], "nextPageToken": more, "totalSize": len(rows)})
