"""What the simulated RunPod has for rent, and what it finds wrong with an order."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast

from infra.simulators.exchange import Reply

Json = dict[str, Any]
DATA_CENTER = {"id": "US-KS-2", "name": "US Kansas 2"}
SOLD_OUT = (
    "There are no longer any instances available with the requested specifications. Please refresh and try again."
)
# What a body may hold: the saved specification, and what later pages of the documentation add to it.
_TYPES: Mapping[str, type] = {
    "name": str,
    "image": str,
    "gpu": dict,
    "cpu": dict,
    "cloud": str,
    "dataCenterIds": list,
    "env": dict,
    "args": str,
    "cmd": list,
    "entrypoint": list,
    "disk": int,
    "ports": list,
    "mounts": dict,
    "registry": str,
    "startSsh": bool,
    "startJupyter": bool,
    "globalNetworking": bool,
    "templateId": str,
}


def _gpu(gpu_id: str, name: str, memory: int, secure: float, community: float | None, stock: str = "HIGH") -> Json:
    return {
        "id": gpu_id,
        "name": name,
        "pool": None,
        "manufacturer": "AMD" if gpu_id.startswith("AMD") else "NVIDIA",
        "memory": memory,
        "secure": True,
        "community": community is not None,
        "price": {"secure": secure, "community": community or 0},
        "maxCount": {"secure": 8, "community": 4 if community is not None else 0},
        "availability": stock,
    }


GPUS: Mapping[str, Json] = {
    gpu["id"]: gpu
    for gpu in (
        _gpu("NVIDIA GeForce RTX 4090", "RTX 4090", 24, 0.44, 0.31),
        _gpu("NVIDIA A100 80GB PCIe", "A100 PCIe", 80, 1.19, None, "MEDIUM"),
        _gpu("NVIDIA H100 80GB HBM3", "H100 SXM", 80, 2.69, None, "LOW"),
        _gpu("NVIDIA L4", "L4", 24, 0.39, None, "NONE"),
        _gpu("AMD Instinct MI300X OAM", "MI300X", 192, 1.99, None),
    )
}


def problem(status: int, detail: str, *errors: str, retry_after: int | None = None) -> Reply:
    """Answer with a problem, as RFC 9457 has it."""
    body: Json = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    headers = {"Content-Type": "application/problem+json"}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return Reply(body | ({"errors": list(errors)} if errors else {}), status, headers)


def refusal(body: object) -> Reply | None:
    """Answer an order that breaks the schema, or a rule that no schema states; None where it is in order."""
    if errors := _violations(body):
        return problem(422, "Request validation failed.", *errors)
    issue = _broken_rule(cast(Json, body))
    return problem(400, issue) if issue else None


def catalogue(query: Mapping[str, str]) -> Reply:
    """Answer with the kinds of GPUs, and their stock where that is asked for."""
    expanded = query.get("include") == "AVAILABILITY"
    if expanded != ("product" in query):
        return problem(400, "include=AVAILABILITY and product must be used together")
    shown = [dict(gpu) for gpu in GPUS.values()]
    for gpu in shown:
        if not expanded:
            del gpu["availability"]
        elif int(query.get("count", 1)) > _most(gpu, query.get("cloud", "SECURE").lower()):
            gpu["availability"] = "NONE"
        elif gpu["availability"] != "NONE":
            gpu["dataCenters"] = [DATA_CENTER | {"availability": gpu["availability"]}]
    return Reply({"gpus": shown})


def _violations(body: object) -> list[str]:
    if not isinstance(body, dict):
        return ["$: must be an object"]
    given = cast(Json, body)
    errors = [f"$: additional properties '{name}' not allowed" for name in given if name not in _TYPES]
    errors += [f"$: missing property '{name}'" for name in ("name", "image") if not given.get(name)]
    errors += [
        f"$.{name}: must be {kind.__name__}"
        for name, kind in _TYPES.items()
        if name in given and not isinstance(given[name], kind)
    ]
    if not errors and not all(isinstance(value, str) for value in given.get("env", {}).values()):
        errors.append("$.env: values must be strings")
    if not errors and given.get("disk", 1) < 1:
        errors.append("$.disk: must be at least 1")
    return errors


def _broken_rule(body: Json) -> str | None:
    if ("gpu" in body) == ("cpu" in body):
        return "exactly one of gpu or cpu must be set"
    if "disk" not in body:
        return "You must either provide a template id or pod configuration parameters"
    gpu, cloud = GPUS.get(str(body.get("gpu", {}).get("id"))), str(body.get("cloud", "SECURE")).lower()
    if gpu is None or cloud not in gpu["maxCount"]:
        return "unknown gpu or cloud"
    if not 1 <= body["gpu"].get("count", 1) <= _most(gpu, cloud) or gpu["availability"] == "NONE":
        return SOLD_OUT
    return None


def _most(gpu: Json, cloud: str) -> int:
    """Return how many of a kind are free on one machine: of what is scarce there is one here and one there."""
    return min(1, gpu["maxCount"][cloud]) if gpu["availability"] == "LOW" else gpu["maxCount"][cloud]
