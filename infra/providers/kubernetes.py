"""
Kubernetes: a machine is a Job of one pod, which the cluster starts once and ends by itself at its deadline.

Only a namespace's jobs and pods need be open to the credentials; with leave to list nodes, too, the cluster's kinds of
GPUs are offered. What an hour of a GPU costs is what the credentials say, since no cluster knows.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from infra.providers import wire
from infra.providers.base import Account, NoCapacity, Offer, Order, Rented, Unclear
from infra.providers.kubernetes_jobs import OF_JOB, PRODUCT, asked, rented
from infra.providers.kubernetes_shapes import Events, Job, Jobs, Node, Nodes, Pod, Pods, Said, Status
from infra.providers.slugs import resource_id
from infra.vendor_http import Answer, Call, trusting
from peft_studio.errors import InvalidConfig, ResourceUnavailable

_PLATFORM, _NAME = "kubernetes", "Kubernetes"
_BOOT_SECONDS = 30.0  # where the image is on the node
_COUNTS = (1, 2, 4, 8)


class Kubernetes:
    """A namespace of one cluster. A name belongs to one Job: what is rented twice under it is one machine."""

    self_release = None  # a Job that has ended costs nothing

    def __init__(self, account: Account, create_seconds: float = wire.CREATE_SECONDS):
        self._account = account
        self._create_seconds = create_seconds
        self._namespace = account.get("namespace", "default")
        self._rate = float(account.get("hourly_rate", "0"))
        self._jobs = f"/apis/batch/v1/namespaces/{self._namespace}/jobs"
        self._pods = f"/api/v1/namespaces/{self._namespace}/pods"
        self._events = f"/api/v1/namespaces/{self._namespace}/events"

    async def offers(self) -> list[Offer]:
        """Return the kinds of GPUs that the nodes have; where nodes may not be listed, one GPU of an unknown kind."""
        answer = await self._read(self._call("/api/v1/nodes"), expected=(200, 403))
        if answer.status == 403:
            return [self._offer([], "", 1)]
        kinds: dict[str, list[Node]] = defaultdict(list)
        for node in wire.understood(Nodes, answer).items:
            if node.gpus:
                kinds[node.metadata.labels.get(PRODUCT, "")].append(node)
        return [
            self._offer([node for node in nodes if node.gpus >= count], product, count)
            for product, nodes in kinds.items()
            for count in _COUNTS
            if count <= max(node.gpus for node in nodes)
        ]

    async def rent(self, offer: Offer, order: Order) -> Rented:
        """Create the Job; one of this name that is there already is the machine."""
        body = asked(order, offer.ref.get("product", ""), offer.gpu_count)
        answer = await wire.create(self._call(self._jobs, "POST", body=body), seconds=self._create_seconds)
        if answer.status in (200, 201, 202):
            try:
                return rented(wire.understood(Job, answer), [])
            except ResourceUnavailable as error:
                raise Unclear(error.message) from None
        if answer.status == 409 and (machine := await self.machine(order.name)):
            return machine
        raise self._not_created(answer)

    async def machines(self) -> list[Rented]:
        """Return the namespace's Jobs that use a GPU or are the studio's."""
        jobs = wire.understood(Jobs, await self._read(self._call(self._jobs))).items
        answer = await self._read(self._call(self._pods, params={"labelSelector": OF_JOB}))
        pods: dict[str, list[Pod]] = defaultdict(list)
        for pod in wire.understood(Pods, answer).items:
            pods[pod.metadata.labels.get(OF_JOB, "")].append(pod)
        return [rented(job, pods[job.metadata.name]) for job in jobs if job.is_of_interest]

    async def machine(self, machine_id: str) -> Rented | None:
        """Return the Job of a name."""
        answer = await self._read(self._call(f"{self._jobs}/{quote(machine_id, safe='')}"), expected=(200, 404))
        if answer.status == 404:
            return None
        pods = await self._read(self._call(self._pods, params={"labelSelector": f"{OF_JOB}={machine_id}"}))
        job, found = wire.understood(Job, answer), wire.understood(Pods, pods).items
        return rented(job, found, [] if found else await self._warnings(machine_id))

    async def _warnings(self, name: str) -> list[Said]:
        """Return why a Job has no pod, a quota say, where the token may know."""
        selector = {"fieldSelector": f"involvedObject.name={name},type=Warning"}
        answer = await self._read(self._call(self._events, params=selector), expected=(200, 403))
        return wire.understood(Events, answer).items if answer.status == 200 else []

    async def release(self, machine_id: str) -> None:
        """Delete the Job in the foreground, which means that it is listed until its pod is gone."""
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"}
        call = self._call(f"{self._jobs}/{quote(machine_id, safe='')}", "DELETE", body=options)
        await self._read(call, expected=(200, 202, 404))

    async def billed(self, machine_id: str, name: str) -> float | None:
        """Return None: no cluster tells what it costs."""
        return None

    def _offer(self, nodes: Sequence[Node], product: str, gpus: int) -> Offer:
        """Return an offer of some GPUs of one of these nodes, or of one that nothing is known of."""
        vram = min((node.vram_gb for node in nodes if node.vram_gb), default=None)
        kind, times = product.replace("-", " ") or None, f" x{gpus}" if gpus > 1 else ""
        return Offer(
            provider=_PLATFORM,
            resource_id=resource_id(kind, vram, gpus) if kind else "gpu" + times.replace(" ", "-"),
            name=f"{kind or 'GPU of a kind the cluster does not tell'}{times}",
            gpu_type=kind,
            gpu_count=gpus,
            vram_gb=vram,
            cpu_cores=int(_least(nodes, "cpu")) if nodes else None,
            ram_gb=round(_least(nodes, "memory") / 1e9, 1) if nodes else None,
            storage_gb=round(_least(nodes, "ephemeral-storage") / 1e9, 1) if nodes else None,
            hourly_rate=self._rate * gpus,
            billing_increment=1,
            minimum_charge=self._rate * gpus / 3600,
            available=not nodes or any(node.takes_pods for node in nodes),
            boot_seconds=_BOOT_SECONDS,
            ref={"product": product},
        )

    def _call(
        self, path: str, method: str = "GET", *, params: Mapping[str, str] | None = None, body: Any = None
    ) -> Call:
        headers = {"Authorization": f"Bearer {self._account.get('token')}", "Accept": "application/json"}
        tls = trusting(self._account.get("ca_certificate"))
        return Call(self._account.url + path, method, params or {}, headers, body, tls)

    async def _read(self, call: Call, expected: Collection[int] = (200,)) -> Answer:
        answer = await wire.read(call)
        if answer.status not in expected:
            raise self._trouble(answer)
        return answer

    def _not_created(self, answer: Answer) -> Exception:
        said = _said(answer)
        match answer.status:
            case 403 if "exceeded quota" in said.message:
                return NoCapacity(f"The quota of the namespace {self._namespace!r} is used up.")
            case 409:
                return NoCapacity("A Job of this name was there a moment ago, and is not any more.")
            case 400 | 422:  # its messages may repeat what stood in the fields
                causes = [f"{cause.field} ({cause.reason})" for cause in said.details.causes]
                return InvalidConfig(f"{_NAME} finds fault with the Job: {', '.join(causes) or said.reason}.")
            case _:
                return self._trouble(answer)

    def _trouble(self, answer: Answer) -> Exception:
        match answer.status:
            case 401 | 403:
                return wire.refused(_NAME, _PLATFORM, answer.status)
            case 402:  # of whoever rents clusters out
                return wire.out_of_credit(_NAME, _PLATFORM)
            case 404:
                return ResourceUnavailable(f"The cluster has no namespace {self._namespace!r}, or knows no Jobs.")
            case status:
                return ResourceUnavailable(f"{_NAME} answered {status}: {_said(answer).reason or 'no reason given'}.")


def _least(nodes: Sequence[Node], what: str) -> float:
    return min(node.allocatable(what) for node in nodes)


def _said(answer: Answer) -> Status:
    try:
        return wire.understood(Status, answer)
    except ResourceUnavailable:
        return Status(kind="Status")
