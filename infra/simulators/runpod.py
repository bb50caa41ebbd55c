"""
RunPod, version 2 of its REST API: pods, the catalogue and the billing of pods.

As the real one, it starts a container anew once its command has ended, shows pods with their environment, has no code
for a lack of capacity, and lets a pod end itself with the key that it finds in its environment. Streams of logs are
left out.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from infra.simulators.cloud import Cloud, SimulatedMachine
from infra.simulators.entrance import Entrance
from infra.simulators.exchange import App, Asked, Reply, application
from infra.simulators.faults import FaultKind
from infra.simulators.runpod_orders import DATA_CENTER, GPUS, SOLD_OUT, Json, catalogue, problem, refusal

NO_FREE_GPU = "There are not enough free GPUs on the host machine to start this pod."
_ACTIONS = {
    "PROVISIONING": ["stop", "terminate"],
    "STARTING": ["stop", "terminate"],
    "RUNNING": ["stop", "restart", "terminate"],
    "EXITED": ["start", "terminate"],
    "ERROR": ["start", "terminate"],
}


def create_runpod(cloud: Cloud) -> App:
    """Make the application; it answers below ``/v2``, with or without ``/runpod`` before it."""
    entrance = Entrance("runpod", cloud, problem(429, "rate limit exceeded", retry_after=1))
    pods = _Pods(cloud)

    async def answer(asked: Asked) -> Reply:
        if not pods.is_own(asked) and (reply := entrance.reply(asked)) is not None:
            return reply
        match asked.method, asked.path.removeprefix("/runpod").removeprefix("/v2").strip("/").split("/"):
            case "GET", ["catalog", "gpus"]:
                return catalogue(asked.query)
            case "GET", ["pods"]:
                return Reply({"pods": [_shown(machine) for machine in cloud.listed()]})
            case "POST", ["pods"]:
                return await pods.create(asked)
            case "GET", ["billing", "pods"]:
                return _billing(cloud, asked.query)
            case "GET", ["account", "ssh-keys"]:
                return Reply({"keys": []})
            case method, ["pods", pod_id, *rest]:
                return pods.act(method, pod_id, rest, asked)
            case _:
                return problem(404, "resource not found")

    return application(answer)


class _Pods:
    """What can be done to pods."""

    def __init__(self, cloud: Cloud):
        self._cloud = cloud

    def is_own(self, asked: Asked) -> bool:
        """Whether a pod asks about itself, with its own key."""
        pod = self._cloud.get(asked.path.partition("/pods/")[2].partition("/")[0])
        return pod is not None and secrets.compare_digest(asked.token, str(pod.environment["RUNPOD_API_KEY"]))

    async def create(self, asked: Asked) -> Reply:
        """Create a pod."""
        try:
            body: Any = json.loads(asked.content)
        except ValueError:
            body = None
        if refused := refusal(body):
            return refused
        faults = self._cloud.faults
        if faults.take(FaultKind.OUT_OF_CREDIT):
            return problem(402, "insufficient balance")
        if faults.take(FaultKind.NO_CAPACITY) or faults.take(FaultKind.STALE_OFFER):
            return problem(400, SOLD_OUT)
        machine = self._created(body)
        if faults.take(FaultKind.ERROR_AFTER_CREATE):
            return problem(500, "internal error")
        if late := faults.take(FaultKind.TIMEOUT_AFTER_CREATE):
            await asyncio.sleep(late.value)
        return Reply(_shown(machine), 201)

    def act(self, method: str, pod_id: str, rest: list[str], asked: Asked) -> Reply:
        """Show, end, stop or restart a pod."""
        machine = self._cloud.get(pod_id)
        if machine is None:
            return problem(404, "pod not found")
        match method, rest:
            case "GET", []:
                return Reply(_shown(machine))
            case "DELETE", []:
                self._cloud.terminate(machine)
                return Reply(b"", 204)
            case "POST", ["action"]:
                return self._action(machine, asked)
            case _:
                return problem(405, "The requested method is not allowed for this path.")

    def _action(self, machine: SimulatedMachine, asked: Asked) -> Reply:
        action = json.loads(asked.content).get("action")
        if action not in _ACTIONS[_status(machine)]:
            return problem(409, f"action {action} is not valid for a pod that is {_status(machine)}")
        if action == "start":  # it keeps its host, whose GPUs were given to somebody else meanwhile
            return problem(400, NO_FREE_GPU)
        if action == "terminate":
            self._cloud.terminate(machine)
            return Reply(b"", 204)
        (self._cloud.restart if action == "restart" else self._cloud.stop)(machine)
        return Reply(_shown(machine))

    def _created(self, body: Json) -> SimulatedMachine:
        pod_id, count = secrets.token_hex(7), int(body["gpu"].get("count", 1))
        cloud = body.get("cloud", "SECURE")
        given = {
            "RUNPOD_POD_ID": pod_id,
            "RUNPOD_API_KEY": f"pod-key-{secrets.token_hex(8)}",
            "RUNPOD_DC_ID": DATA_CENTER["id"],
            "RUNPOD_GPU_COUNT": str(count),
        }
        return self._cloud.create(
            pod_id,
            body["name"],
            ["/bin/sh", "-c", body["args"]] if body.get("args") else ["/bin/true"],
            dict(body.get("env", {})) | given,
            GPUS[body["gpu"]["id"]]["price"][cloud.lower()] * count,
            asked=body,
        )


def _status(machine: SimulatedMachine) -> str:
    if machine.lost:
        return "ERROR"
    if machine.ended:
        return "EXITED"
    if machine.started:
        return "RUNNING"
    return "PROVISIONING" if time.time() < machine.created + min(machine.boot_seconds, 20) / 2 else "STARTING"


def _shown(machine: SimulatedMachine) -> Json:
    """Return a pod as the API shows it."""
    asked, status = machine.details["asked"], _status(machine)
    uptime = int(time.time() - (machine.started or machine.created))
    return {
        "id": machine.id,
        "name": machine.name,
        "status": status,
        "actions": _ACTIONS[status],
        "image": asked["image"],
        "args": asked.get("args", ""),
        "disk": asked["disk"],
        "ports": asked.get("ports", []),
        "env": asked.get("env", {}),
        "registry": asked.get("registry"),
        "mounts": asked.get("mounts", {}),
        "gpu": {"id": asked["gpu"]["id"], "count": asked["gpu"].get("count", 1)},
        "cloud": asked.get("cloud", "SECURE"),
        "dataCenterId": DATA_CENTER["id"],
        "cudaVersion": "12.8",
        "ssh": {"proxy": None, "direct": None},
        "template": None,
        "cost": 0.0 if status in ("EXITED", "ERROR") else machine.hourly_rate,
        "locked": False,
        "globalNetworking": {"enabled": False},
        "runtime": {"uptime": uptime, "gpus": [], "ports": []} if status == "RUNNING" else None,
        "createdAt": _time(machine.created),
        "startedAt": _time(machine.started) if machine.started else None,
    }


def _billing(cloud: Cloud, query: Mapping[str, str]) -> Reply:
    """Answer with one record a pod, in the day's bucket it was created in."""
    chosen = [one for one in list(cloud.machines.values()) if query.get("podId", one.id) == one.id]
    records = [_amounts(cloud.cost(one)) | _day(one.created) | {"podId": one.id} for one in chosen]
    asked = _day(time.time()) | {"bucketSize": query.get("bucketSize", "day"), "podId": query.get("podId")}
    totals = _amounts(sum(map(cloud.cost, chosen)))
    metadata = {"query": asked, "recordCount": len(records), "uniquePodCount": len(records), "totals": totals}
    return Reply({"records": records, "metadata": metadata})


def _amounts(cost: float) -> Json:
    return {"totalAmount": cost, "gpuAmount": cost, "cpuAmount": 0, "diskAmount": 0}


def _day(seconds: float) -> Json:
    begin = datetime.fromtimestamp(seconds, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return {"startTime": _time(begin.timestamp()), "endTime": _time((begin + timedelta(days=1)).timestamp())}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
