"""
Hugging Face Jobs: containers that end with their command, by being cancelled, or when their time is over.

As the client of the vendor's own library expects it. Assumed, since nothing is written on them: the words of a flavour
that is sold out, of a node that was lost, and of a job whose time is over.
"""

import asyncio
import json
import math
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from infra.simulators.cloud import Cloud, SimulatedMachine
from infra.simulators.entrance import Entrance
from infra.simulators.exchange import App, Asked, Reply, application
from infra.simulators.faults import FaultKind

Json = dict[str, Any]
USER, ORGANIZATION = "alice", "acme"
_OWNERS = {
    USER: {"id": "5e9ecfc04957053f60648a3e", "name": USER, "type": "user"},
    ORGANIZATION: {"id": "5e67bd5b1009063689407478", "name": ORGANIZATION, "type": "org"},
}
_A_PAGE = 20
_SECONDS = 1800  # that a job may take unless it says otherwise


def _flavor(name: str, title: str, cpu: str, ram: str, disk: str, price: int, gpu: tuple[str, int, int] | None) -> Json:
    """Return a flavour as it is listed; its price is in millionths of a US dollar a minute."""
    accelerator = None
    if gpu:
        model, quantity, vram = gpu
        accelerator = {"type": "gpu", "model": model, "quantity": str(quantity), "manufacturer": "Nvidia"}
        accelerator["vram"] = f"{vram * quantity} GB"
    return {
        "name": name,
        "prettyName": title,
        "cpu": cpu,
        "ram": ram,
        "ephemeralStorage": disk,
        "accelerator": accelerator,
        "unitCostMicroUSD": price,
        "unitCostUSD": price / 1e6,
        "unitLabel": "minute",
    }


_ALL = (
    _flavor("cpu-basic", "CPU Basic", "2 vCPU", "16 GB", "50 GB", 167, None),
    _flavor("t4-small", "Nvidia T4 - small", "4 vCPU", "15 GB", "50 GB", 6667, ("T4", 1, 16)),
    _flavor("l4x1", "1x Nvidia L4", "8 vCPU", "30 GB", "400 GB", 13333, ("L4", 1, 24)),
    _flavor("a10g-small", "Nvidia A10G - small", "4 vCPU", "15 GB", "110 GB", 16667, ("A10G", 1, 24)),
    _flavor("a10g-largex2", "2x Nvidia A10G - large", "24 vCPU", "92 GB", "1000 GB", 50000, ("A10G", 2, 24)),
    _flavor("a100-large", "Nvidia A100 - large", "12 vCPU", "142 GB", "1000 GB", 41667, ("A100", 1, 80)),
    _flavor("h200", "Nvidia H200", "23 vCPU", "256 GB", "3000 GB", 83333, ("H200", 1, 141)),
)
_FLAVORS = {flavor["name"]: flavor for flavor in _ALL}


def create_huggingface_jobs(cloud: Cloud) -> App:
    """Make the application; it answers below ``/api``, with or without ``/huggingface`` before it."""
    entrance = Entrance(
        "huggingface", cloud, Reply({"error": "Too Many Requests"}, 429, {"RateLimit": '"api";r=0;t=1'})
    )
    jobs = _Jobs(cloud)

    async def answer(asked: Asked) -> Reply:
        if (reply := entrance.reply(asked)) is not None:
            return reply
        match asked.method, asked.path.removeprefix("/huggingface").strip("/").split("/"):
            case "GET", ["api", "whoami-v2"]:
                return Reply({"type": "user", "id": _OWNERS[USER]["id"], "name": USER})
            case "GET", ["api", "jobs", "hardware"]:
                return Reply(list(_FLAVORS.values()))
            case "GET", ["api", "jobs", namespace] if namespace in _OWNERS:
                return jobs.page(namespace, asked)
            case "POST", ["api", "jobs", namespace] if namespace in _OWNERS:
                return await jobs.create(namespace, json.loads(asked.content))
            case method, ["api", "jobs", namespace, job_id, *rest] if namespace in _OWNERS:
                return jobs.act(namespace, method, job_id, rest)
            case _:
                return Reply({"error": "Not Found"}, 404)

    return application(answer)


class _Jobs:
    """What can be done to jobs."""

    def __init__(self, cloud: Cloud):
        self._cloud = cloud

    async def create(self, namespace: str, body: Json) -> Reply:
        """Start a job."""
        flavor, faults = _FLAVORS.get(body.get("flavor", "")), self._cloud.faults
        if not (body.get("dockerImage") or body.get("spaceId")) or not isinstance(body.get("command"), list):
            return Reply({"error": "Invalid job: an image and a command are required"}, 400)
        if faults.take(FaultKind.OUT_OF_CREDIT):
            pay = "Pre-paid credit balance is insufficient - add more credits to your account to use Jobs."
            return Reply({"error": pay}, 402)
        if flavor is None or faults.take(FaultKind.STALE_OFFER):
            return Reply({"error": f"Invalid flavor: {body.get('flavor')} is not available"}, 400)
        if faults.take(FaultKind.NO_CAPACITY):
            return Reply({"error": f"No capacity for flavor {flavor['name']} at the moment"}, 409)
        rate = flavor["unitCostMicroUSD"] * 60 / 1e6
        job_id, labels = secrets.token_hex(12), body.get("labels", {})
        machine = self._cloud.create(
            job_id,
            labels.get("name", ""),
            [*body["command"], *body.get("arguments", [])],
            body.get("environment", {}) | body.get("secrets", {}) | {"JOB_ID": job_id, "ACCELERATOR": flavor["name"]},
            rate,
            asked=body,
            namespace=namespace,
        )
        machine.hourly_rate = rate  # whatever was to drift: a flavour has one price, for every job of everybody
        seconds = body.get("timeoutSeconds", _SECONDS)
        asyncio.get_running_loop().call_later(seconds, self._time_is_over, machine)
        if faults.take(FaultKind.ERROR_AFTER_CREATE):
            return Reply({"error": "Internal Server Error"}, 500)
        if late := faults.take(FaultKind.TIMEOUT_AFTER_CREATE):
            await asyncio.sleep(late.value)
        return Reply(_shown(machine))

    def page(self, namespace: str, asked: Asked) -> Reply:
        """Return jobs, over ones included, newest first; where more follow, the ``Link`` header says where."""
        owned = [one for one in self._cloud.machines.values() if one.details["namespace"] == namespace]
        listed = [one for one in owned if one.listed_from <= time.time()]
        shown = [_shown(one) for one in sorted(listed, key=lambda one: one.created, reverse=True)]
        stages = asked.values("stage")
        if stages:
            shown = [one for one in shown if one["status"]["stage"] in stages]
        begin = int(asked.query.get("cursor", "0"))
        more = urlencode([("stage", stage) for stage in stages] + [("cursor", str(begin + _A_PAGE))])
        link = {"Link": f'<{asked.origin}{asked.path}?{more}>; rel="next"'} if begin + _A_PAGE < len(shown) else {}
        return Reply(shown[begin : begin + _A_PAGE], 200, link)

    def act(self, namespace: str, method: str, job_id: str, rest: list[str]) -> Reply:
        """Show or cancel a job."""
        machine = self._cloud.machines.get(job_id)
        if machine is None or machine.details["namespace"] != namespace:
            return Reply({"error": "Job not found"}, 404)
        match method, rest:
            case "GET", []:
                return Reply(_shown(machine))
            case "POST", ["cancel"]:
                if machine.gone is None:
                    self._cloud.terminate(machine)
                return Reply(_shown(machine))
            case _:
                return Reply({"error": "Not Found"}, 404)

    def _time_is_over(self, machine: SimulatedMachine) -> None:
        if machine.is_at_work:
            machine.details["message"] = "Job timeout"
            self._cloud.preempt(machine)


def _status(machine: SimulatedMachine) -> Json:
    if machine.lost:
        return {"stage": "ERROR", "message": machine.details.get("message", "Job failed: its node was lost")}
    if machine.ended:
        if machine.exit_code == 0:
            return {"stage": "COMPLETED", "message": None}
        return {"stage": "ERROR", "message": f"Job failed with exit code: {machine.exit_code}. Reason: Error"}
    if machine.gone:
        return {"stage": "CANCELED", "message": None}
    return {"stage": "RUNNING" if machine.started else "SCHEDULING", "message": None}


def _shown(machine: SimulatedMachine) -> Json:
    """Return a job as the API shows it: with its environment, without its secrets."""
    asked: Mapping[str, Any] = machine.details["asked"]
    until = min((end for end in (machine.ended, machine.lost, machine.gone) if end), default=None)
    return {
        "id": machine.id,
        "createdAt": _time(machine.created),
        "startedAt": _time(machine.started),
        "finishedAt": _time(until),
        "dockerImage": asked.get("dockerImage"),
        "command": asked["command"],
        "arguments": asked.get("arguments", []),
        "environment": asked.get("environment", {}),
        "flavor": asked["flavor"],
        "labels": asked.get("labels", {}),
        "owner": _OWNERS[machine.details["namespace"]],
        "initiator": _OWNERS[USER],
        "status": _status(machine),
        "durations": _durations(machine, until or time.time()),
    }


def _durations(machine: SimulatedMachine, until: float) -> Json:
    """Return whole seconds, every one that was begun; none of what has not begun."""
    running = math.ceil(until - machine.started) if machine.started else None
    waited = math.ceil((machine.started or until) - machine.created)
    return {"schedulingSecs": waited, "runningSecs": running, "totalSecs": math.ceil(until - machine.created)}


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
