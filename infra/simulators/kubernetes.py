"""
A Kubernetes cluster: its nodes, the Jobs of the namespace ``default``, and their pods.

As the real one, it knows a Job by its name, lets a pod wait until a node has room, fails a Job whose pod it has taken
away, ends one at its deadline, and keeps a deleted one listed until its pod is gone. Watches and logs are left out.
"""

import asyncio
import json
import math
import os
import re
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from infra.simulators.accounts import GOOD
from infra.simulators.cloud import Cloud, SimulatedMachine
from infra.simulators.entrance import Entrance
from infra.simulators.exchange import App, Asked, Reply, application
from infra.simulators.faults import FaultKind

Json = dict[str, Any]
HOURLY_RATE = 1.2  # of one GPU; what a cluster costs is known to its owner only
_GPU, _PRODUCT, _OF_JOB = "nvidia.com/gpu", "nvidia.com/gpu.product", "batch.kubernetes.io/job-name"
_NODES = {  # name: product, MiB of one GPU, GPUs
    "gpu-a": ("NVIDIA-A100-SXM4-80GB", 81920, 8),
    "gpu-b": ("NVIDIA-A100-SXM4-80GB", 81920, 8),
    "gpu-c": ("Tesla-T4", 15360, 4),
    "plain": ("", 0, 0),
}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_JOBS, _PODS = "/apis/batch/v1/namespaces/default/jobs", "/api/v1/namespaces/default/pods"
_EVENTS = "/api/v1/namespaces/default/events"


def status(code: int, reason: str, message: str, *causes: Json, headers: Mapping[str, str] | None = None) -> Reply:
    """Answer with a Status, which is how the API says that something was not done."""
    details = {"details": {"causes": list(causes)}} if causes else {}
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message}
    return Reply(body | {"reason": reason, "code": code} | details, code, headers or {})


def create_kubernetes(cloud: Cloud, *, may_list_nodes: bool = True, gpu_quota: int | None = None) -> App:
    """
    Make the application; it answers below ``/``, with or without ``/kubernetes`` before it.

    With a quota of GPUs for the namespace, a Job that exceeds it exists without a pod until there is room.
    """
    too_many = status(
        429, "TooManyRequests", "Too many requests, please try again later.", headers={"Retry-After": "1"}
    )
    entrance, cluster = Entrance("kubernetes", cloud, too_many), _Cluster(cloud, gpu_quota)

    async def answer(asked: Asked) -> Reply:
        if (reply := entrance.reply(asked)) is not None:
            return reply
        cluster.place_those_that_wait()
        path = asked.path.removeprefix("/kubernetes")
        match asked.method, path.removeprefix(_JOBS).split("/"):
            case "GET", ["", "api", "v1", "nodes"] if may_list_nodes:
                return Reply({"kind": "NodeList", "items": [_node(name) for name in _NODES]})
            case "GET", ["", "api", "v1", "nodes"]:
                return status(403, "Forbidden", 'nodes is forbidden: User "trainer" cannot list resource "nodes"')
            case "GET", [*_] if path == _PODS:
                return Reply({"kind": "PodList", "items": cluster.pods(asked.query.get("labelSelector", ""))})
            case "GET", [*_] if path == _EVENTS:
                return Reply({"kind": "EventList", "items": cluster.events(asked.query.get("fieldSelector", ""))})
            case "POST", [""]:
                return await cluster.create(json.loads(asked.content))
            case "GET", [""]:
                return Reply({"kind": "JobList", "items": [_job(machine) for machine in cloud.existing()]})
            case "GET", ["", name] if machine := cloud.get(name):
                return Reply(_job(machine))
            case "DELETE", ["", name] if machine := cloud.get(name):
                return cluster.delete(machine, asked)
            case _:
                return status(404, "NotFound", "not found")

    return application(answer)


def credentials(address: str) -> dict[str, str]:
    """Return what connecting to the cluster at an address takes."""
    return {"url": address, "token": GOOD, "hourly_rate": str(HOURLY_RATE)}


class _Cluster:
    def __init__(self, cloud: Cloud, gpu_quota: int | None):
        self._cloud = cloud
        self._gpu_quota = gpu_quota
        self._deleting: set[asyncio.Task[None]] = set()

    async def create(self, body: Json) -> Reply:
        faults, name = self._cloud.faults, str(body.get("metadata", {}).get("name", ""))
        if causes := _violations(body, name):
            return status(422, "Invalid", f'Job.batch "{name}" is invalid', *causes)
        if self._cloud.get(name):
            return status(409, "AlreadyExists", f'jobs.batch "{name}" already exists')
        if faults.take(FaultKind.NO_CAPACITY):
            return status(
                403,
                "Forbidden",
                f'jobs.batch "{name}" is forbidden: exceeded quota: gpus, requested: count/jobs.batch=1',
            )
        machine = self._create(name, body)
        if faults.take(FaultKind.ERROR_AFTER_CREATE):
            return status(500, "InternalError", "etcdserver: request timed out")
        if late := faults.take(FaultKind.TIMEOUT_AFTER_CREATE):
            await asyncio.sleep(late.value)
        return Reply(_job(machine), 201)

    def _create(self, name: str, body: Json) -> SimulatedMachine:
        spec = body["spec"]["template"]["spec"]
        container = spec["containers"][0]
        gpus = int(container["resources"]["limits"][_GPU])
        machine = self._cloud.create(
            name,
            name,
            [*container.get("command", []), *container.get("args", [])],
            {one["name"]: one["value"] for one in container.get("env", [])},
            HOURLY_RATE * gpus,
            asked=body,
            gpus=gpus,
            product=(spec.get("nodeSelector") or {}).get(_PRODUCT, ""),
        )
        machine.details |= {"boot_seconds": machine.boot_seconds}
        machine.boot_seconds = math.inf
        if self._cloud.faults.take(FaultKind.STALE_OFFER):
            machine.details["product"] = "of a node that was removed"
        self.place_those_that_wait()
        deadline = body["spec"].get("activeDeadlineSeconds")
        if deadline is not None:
            asyncio.get_running_loop().call_later(deadline, self._end_late, machine)
        return machine

    def _end_late(self, machine: SimulatedMachine) -> None:
        if machine.is_at_work:
            machine.details["is_late"] = True
            self._cloud.stop(machine)

    def place_those_that_wait(self) -> None:
        for machine in self._cloud.existing():
            if not machine.is_at_work or "node" in machine.details:
                continue
            machine.details["has_pod"] = machine.details.get("has_pod") or self._is_within_quota(machine)
            if machine.details["has_pod"] and (node := self._room_for(machine)):
                machine.details["node"] = node
                machine.boot_seconds = time.time() - machine.created + machine.details["boot_seconds"]

    def _is_within_quota(self, machine: SimulatedMachine) -> bool:
        others = [one for one in self._cloud.existing() if one.is_at_work and one.details.get("has_pod")]
        used = sum(one.details["gpus"] for one in others)
        return self._gpu_quota is None or used + machine.details["gpus"] <= self._gpu_quota

    def _room_for(self, machine: SimulatedMachine) -> str | None:
        for node, (product, _, gpus) in _NODES.items():
            on_it = [one for one in self._cloud.existing() if one.details.get("node") == node and one.is_at_work]
            free = gpus - sum(one.details["gpus"] for one in on_it)
            if machine.details["product"] in ("", product) and machine.details["gpus"] <= free:
                return node
        return None

    def pods(self, selector: str) -> list[Json]:
        label, _, name = selector.partition("=")
        chosen = [one for one in self._cloud.existing() if name in ("", one.name)] if label == _OF_JOB else []
        shown = [machine for machine in chosen if not machine.lost and "is_late" not in machine.details]
        return [_pod(machine) for machine in shown if machine.details["has_pod"]]

    def events(self, selector: str) -> list[Json]:
        """Return why the Job of a selector has no pod."""
        name = selector.partition("involvedObject.name=")[2].partition(",")[0]
        machine = self._cloud.get(name)
        if machine is None or machine.details["has_pod"]:
            return []
        why = f'pods "{name}-" is forbidden: exceeded quota: gpus, limited: requests.{_GPU}={self._gpu_quota}'
        return [{"type": "Warning", "reason": "FailedCreate", "message": f"Error creating: {why}"}]

    def delete(self, machine: SimulatedMachine, asked: Asked) -> Reply:
        policy = json.loads(asked.content or b"{}").get("propagationPolicy")
        if policy != "Foreground":  # the pod outlives the Job for a while, or for good: this cluster does without
            return status(400, "BadRequest", "this cluster deletes in the foreground only")
        if "deleted" not in machine.details:
            machine.details["deleted"] = time.time()
            task = asyncio.get_running_loop().create_task(self._end(machine))
            self._deleting.add(task)
            task.add_done_callback(self._deleting.discard)
        return Reply(_job(machine))

    async def _end(self, machine: SimulatedMachine) -> None:
        """End a pod as nodes do: ask, wait, kill."""
        grace = machine.details["asked"]["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", 30)
        if machine.process is not None and machine.is_at_work:
            with suppress(ProcessLookupError):
                os.killpg(machine.process.pid, signal.SIGTERM)
            while machine.is_at_work and time.time() < machine.details["deleted"] + grace:
                await asyncio.sleep(0.05)
        self._cloud.terminate(machine)


def _violations(body: Json, name: str) -> list[Json]:
    """Return where a Job breaks the rules that a provider could break."""
    spec = body.get("spec", {}).get("template", {}).get("spec", {})
    containers = spec.get("containers") or []
    wrong = {
        "metadata.name": _NAME.fullmatch(name) is None,
        "spec.template.spec.containers": not containers or not all(one.get("image") for one in containers),
        "spec.template.spec.restartPolicy": spec.get("restartPolicy") not in ("Never", "OnFailure"),
        "spec.podFailurePolicy": "podFailurePolicy" in body.get("spec", {}) and spec.get("restartPolicy") != "Never",
    }
    return [
        {"reason": "FieldValueInvalid", "message": "Invalid value", "field": at} for at, is_so in wrong.items() if is_so
    ]


def _job(machine: SimulatedMachine) -> Json:
    metadata = machine.details["asked"]["metadata"] | {"creationTimestamp": _time(machine.created)}
    if "deleted" in machine.details:
        metadata |= {"deletionTimestamp": _time(machine.details["deleted"])}
    conditions = [{"type": name, "status": "True", "reason": reason} for name, reason in _end_of(machine)]
    return machine.details["asked"] | {"metadata": metadata, "status": {"conditions": conditions}}


def _end_of(machine: SimulatedMachine) -> list[tuple[str, str]]:
    """Return the conditions of a Job that has ended."""
    if "is_late" in machine.details:
        return [("FailureTarget", "DeadlineExceeded"), ("Failed", "DeadlineExceeded")]
    if machine.lost:
        told = "podFailurePolicy" in machine.details["asked"]["spec"]
        reason = "PodFailurePolicy" if told else "BackoffLimitExceeded"
        return [("FailureTarget", reason), ("Failed", reason)]
    if not machine.ended:
        return []
    if machine.exit_code == 0:
        return [("SuccessCriteriaMet", "CompletionsReached"), ("Complete", "CompletionsReached")]
    return [("FailureTarget", "BackoffLimitExceeded"), ("Failed", "BackoffLimitExceeded")]


def _pod(machine: SimulatedMachine) -> Json:
    metadata = {"name": f"{machine.name}-x7k2p", "labels": {_OF_JOB: machine.name}}
    return {"kind": "Pod", "metadata": metadata, "status": _pod_status(machine)}


def _pod_status(machine: SimulatedMachine) -> Json:
    if machine.ended:
        code = machine.exit_code or 0
        # Nobody but the kernel kills a container's command like that.
        reason = "Completed" if code == 0 else "OOMKilled" if code == -signal.SIGKILL else "Error"
        ended = {"exitCode": code if code >= 0 else 128 - code, "reason": reason}
        return {"phase": "Failed" if code else "Succeeded", "containerStatuses": [{"state": {"terminated": ended}}]}
    if machine.started:
        return {
            "phase": "Running",
            "containerStatuses": [{"state": {"running": {"startedAt": _time(machine.started)}}}],
        }
    if "node" not in machine.details:
        why = {"reason": "Unschedulable", "message": f"0/{len(_NODES)} nodes are available: Insufficient {_GPU}."}
        return {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False"} | why]}
    waiting = {"reason": "ContainerCreating"}
    if machine.boot_seconds == math.inf:
        image = machine.details["asked"]["spec"]["template"]["spec"]["containers"][0]["image"]
        waiting = {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}"'}
    return {"phase": "Pending", "containerStatuses": [{"state": {"waiting": waiting}}]}


def _node(name: str) -> Json:
    product, memory, gpus = _NODES[name]
    labels = {_PRODUCT: product, "nvidia.com/gpu.memory": str(memory)} if gpus else {}
    allocatable = {"cpu": "31850m", "memory": "131072Mi", "ephemeral-storage": "500G"}
    if gpus:
        allocatable |= {_GPU: str(gpus)}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    return {"metadata": {"name": name, "labels": labels}, "status": {"allocatable": allocatable, "conditions": [ready]}}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
