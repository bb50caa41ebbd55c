"""
Lambda Cloud's API: types, SSH keys, and instances that do on their first boot what cloud-init is told.

As the real one, it knows no end of a command: an instance is active until it is terminated. Of its ``user_data`` the
first ``docker run`` is taken, and its command run as a process with the environment it is given.
"""

import asyncio
import json
import secrets
import shlex
import time
from collections.abc import Iterable, Mapping
from typing import Any, cast

import yaml

from infra.simulators.cloud import Cloud, SimulatedMachine
from infra.simulators.entrance import Entrance
from infra.simulators.exchange import App, Asked, Reply, application
from infra.simulators.faults import FaultKind

Json = dict[str, Any]
_REGION = {"name": "us-east-1", "description": "Virginia, USA"}
_MOST_USER_DATA = 1 << 20
_FLAGS = frozenset(("--detach", "-d", "--rm", "--init", "--privileged"))  # options of docker run without a value
_MESSAGES = {
    "global/invalid-parameters": "Invalid request data.",
    "global/object-does-not-exist": "Specified object does not exist.",
    "global/account-inactive": "Your account is inactive.",
    "global/duplicate": "There is one of this name already.",
    "global/too-many-requests": "Too many requests.",
    "instance-operations/launch/insufficient-capacity": "Not enough capacity to fulfill launch request.",
    "provider/internal-unavailable": "Provider is unavailable.",
}


def _type(name: str, gpu: str, cents: int, gpus: int = 1, *, in_stock: bool = True) -> Json:
    specs = {"vcpus": 30 * gpus, "memory_gib": 200 * gpus, "storage_gib": 1400, "gpus": gpus}
    shown = {
        "name": name,
        "description": f"{gpus}x {gpu}",
        "gpu_description": gpu,
        "price_cents_per_hour": cents,
        "specs": specs,
    }
    return {"instance_type": shown, "regions_with_capacity_available": [_REGION] if in_stock else []}


TYPES: Mapping[str, Json] = {
    item["instance_type"]["name"]: item
    for item in (
        _type("gpu_1x_a10", "A10 (24 GB PCIe)", 75),
        _type("gpu_1x_a100_sxm4", "A100 (40 GB SXM4)", 129),
        _type("gpu_8x_h100_sxm5", "H100 (80 GB SXM5)", 2392, 8),
        _type("gpu_1x_a6000", "A6000 (48 GB)", 80, in_stock=False),
        _type("gpu_1x_gh200", "GH200 (96 GB)", 149),
    )
}


def error(status: int, code: str) -> Reply:
    """Answer with an error in its envelope."""
    return Reply({"error": {"code": code, "message": _MESSAGES[code], "suggestion": "See the documentation."}}, status)


def create_lambda(cloud: Cloud, launch_seconds: float = 12.0) -> App:
    """Make the application, to which launches must be so far apart; its root may be ``/lambda`` or ``/api/v1``."""
    entrance = Entrance("lambda", cloud, error(429, "global/too-many-requests"))
    account = _LambdaAccount(cloud, launch_seconds)

    async def answer(asked: Asked) -> Reply:
        path = asked.path.removeprefix("/lambda").removeprefix("/api/v1")
        if (reply := entrance.reply(asked)) is not None:
            return reply
        match asked.method, path.strip("/").split("/"):
            case "GET", ["instance-types"]:
                return Reply({"data": TYPES})
            case "GET", ["ssh-keys"]:
                return Reply({"data": account.ssh_keys})
            case "POST", ["ssh-keys"]:
                return account.add_ssh_key(_body(asked))
            case "GET", ["instances"]:
                return Reply({"data": [_shown(machine) for machine in cloud.listed()]})
            case "GET", ["instances", machine_id]:
                machine = cloud.get(machine_id)
                return Reply({"data": _shown(machine)}) if machine else error(404, "global/object-does-not-exist")
            case "POST", ["instance-operations", "launch"]:
                return await account.launch(_body(asked))
            case "POST", ["instance-operations", "terminate"]:
                return account.terminate(_body(asked))
            case _:
                return error(404, "global/object-does-not-exist")

    return application(answer)


class _LambdaAccount:
    """What one account has."""

    def __init__(self, cloud: Cloud, launch_seconds: float):
        self._cloud = cloud
        self._launch_seconds = launch_seconds
        self._launched = 0.0
        self.ssh_keys: list[Json] = []

    def add_ssh_key(self, body: Json) -> Reply:
        """Add a key, or make one, whose private part is shown this once."""
        if not body.get("name"):
            return error(400, "global/invalid-parameters")
        if any(key["name"] == body["name"] for key in self.ssh_keys):
            return error(400, "global/duplicate")
        public = body.get("public_key") or f"ssh-ed25519 {secrets.token_urlsafe(48)} simulated"
        key = {"id": secrets.token_hex(16), "name": body["name"], "public_key": public}
        self.ssh_keys.append(key)
        made = (
            {} if body.get("public_key") else {"private_key": f"-----BEGIN SIMULATED KEY-----\n{secrets.token_hex(16)}"}
        )
        return Reply({"data": key | made})

    async def launch(self, body: Json) -> Reply:
        """Launch an instance."""
        faults, now = self._cloud.faults, time.monotonic()
        if now < self._launched + self._launch_seconds:
            return error(429, "global/too-many-requests")
        self._launched = now
        if (issue := self._refusal(body)) is not None:
            return issue
        if faults.take(FaultKind.OUT_OF_CREDIT):
            return error(403, "global/account-inactive")
        if faults.take(FaultKind.NO_CAPACITY):
            return error(400, "instance-operations/launch/insufficient-capacity")
        if faults.take(FaultKind.STALE_OFFER):
            return error(400, "global/object-does-not-exist")
        machine = self._created(body)
        if faults.take(FaultKind.ERROR_AFTER_CREATE):
            return error(500, "provider/internal-unavailable")
        if late := faults.take(FaultKind.TIMEOUT_AFTER_CREATE):
            await asyncio.sleep(late.value)
        return Reply({"data": {"instance_ids": [machine.id]}})

    def terminate(self, body: Json) -> Reply:
        """Terminate instances, all or, where one is not there, none."""
        machines = [self._cloud.get(str(machine_id)) for machine_id in body.get("instance_ids", [])]
        if not machines or None in machines:
            return error(404, "global/object-does-not-exist")
        found = [machine for machine in machines if machine]
        for machine in found:
            self._cloud.terminate(machine)
        return Reply({"data": {"terminated_instances": [_shown(machine) for machine in found]}})

    def _refusal(self, body: Json) -> Reply | None:
        names, script = body.get("ssh_key_names"), body.get("user_data", "")
        known = {
            "region_name",
            "instance_type_name",
            "ssh_key_names",
            "file_system_names",
            "name",
            "image",
            "user_data",
        }
        if not isinstance(names, list) or len(cast(list[Any], names)) != 1 or body.keys() - known:
            return error(400, "global/invalid-parameters")
        if len(str(body.get("name", ""))) > 64 or len(script) > _MOST_USER_DATA:
            return error(400, "global/invalid-parameters")
        item = TYPES.get(str(body.get("instance_type_name")))
        if names[0] not in [key["name"] for key in self.ssh_keys] or item is None:
            return error(404, "global/object-does-not-exist")
        if body.get("region_name") not in [region["name"] for region in item["regions_with_capacity_available"]]:
            return error(400, "instance-operations/launch/insufficient-capacity")
        return None

    def _created(self, body: Json) -> SimulatedMachine:
        command, environment = first_docker_run(body.get("user_data", ""))
        item = TYPES[body["instance_type_name"]]
        rate = item["instance_type"]["price_cents_per_hour"] / 100
        return self._cloud.create(secrets.token_hex(16), body.get("name", ""), command, environment, rate, asked=body)


def first_docker_run(user_data: str) -> tuple[list[str], dict[str, str]]:
    """Return the command and environment of what a cloud-init configuration runs in Docker; idles where it does not."""
    read: Any = yaml.safe_load(user_data) if user_data.startswith("#cloud-config\n") else {}
    for item in cast(Json, read or {}).get("runcmd", []):
        words = shlex.split(item) if isinstance(item, str) else [str(word) for word in item]
        if words[:2] == ["docker", "run"]:
            return _parsed(words[2:])
    return ["sleep", "infinity"], {}


def _parsed(words: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    left, environment = iter(words), dict[str, str]()
    for word in left:
        if not word.startswith("-"):
            break  # that was the image
        name, is_whole, value = word.partition("=")
        if name in _FLAGS:
            continue
        value = value if is_whole else next(left)
        if name in ("--env", "-e"):
            variable, _, content = value.partition("=")
            environment[variable] = content
    return list(left), environment


def _shown(machine: SimulatedMachine) -> Json:
    """Return an instance as the API shows it."""
    asked = machine.details["asked"]
    item = TYPES[asked["instance_type_name"]]["instance_type"]
    can = {"available": machine.started is not None}
    reason = {} if machine.started else {"reason_code": "vm-has-not-launched", "reason_description": "It boots."}
    return {
        "id": machine.id,
        "name": machine.name,
        **({"ip": "198.51.100.2", "private_ip": "10.0.2.100"} if machine.started else {}),
        "status": _status(machine),
        "ssh_key_names": asked["ssh_key_names"],
        "file_system_names": asked.get("file_system_names", []),
        "region": _REGION,
        "instance_type": item | {"price_cents_per_hour": round(machine.hourly_rate * 100)},
        "actions": dict.fromkeys(("migrate", "rebuild", "restart", "cold_reboot", "terminate"), can | reason),
    }


def _status(machine: SimulatedMachine) -> str:
    if machine.gone:
        return "terminating"
    if machine.lost:
        return "preempted"
    return "active" if machine.started else "booting"


def _body(asked: Asked) -> Json:
    try:
        read = json.loads(asked.content)
    except ValueError:
        return {}
    return cast(Json, read) if isinstance(read, dict) else {}
