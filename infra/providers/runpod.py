"""RunPod: containers ("pods") by the second, through version 2 of its REST API."""

import asyncio
import re
import shlex
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, Field

from infra.providers import wire
from infra.providers.base import Account, MachineState, NoCapacity, Offer, Order, Rented, Unclear
from infra.providers.slugs import resource_id
from infra.vendor_http import Answer, Call
from peft_studio.errors import InvalidConfig, ResourceUnavailable
from peft_studio.remote.self_release import SelfRelease

_PLATFORM, _NAME = "runpod", "RunPod"
_COUNTS = (1, 2, 4, 8)
_BOOT_SECONDS = 30.0  # to place a pod and start its container
# A pod that exited is stopped: it costs its volume only. One in error is beyond repair, whatever was the reason.
_STATES = {
    "PROVISIONING": MachineState.BOOTING,
    "STARTING": MachineState.BOOTING,
    "RUNNING": MachineState.RUNNING,
    "EXITED": MachineState.ENDED,
    "ERROR": MachineState.LOST,
    "TERMINATED": MachineState.LOST,
}
# There is no code for it: a 400 is a rule that was broken, or that no machine is free, and only the text tells which.
_NO_CAPACITY = re.compile(
    r"no longer any instances|not enough free gpus|not have the resources"
    r"|no (available )?(instance|machine|host|gpu)s?\b|capacity|(un|not (currently )?)available|out of stock"
    r"|could not be placed",
    re.IGNORECASE,
)


class _Gpu(BaseModel):
    id: str
    name: str
    manufacturer: str
    memory: float
    secure: bool
    community: bool
    price: dict[str, float]
    max_count: dict[str, int] = Field(alias="maxCount")
    availability: str = "NONE"


class _Gpus(BaseModel):
    gpus: list[_Gpu]


class _Pod(BaseModel):
    id: str = Field(min_length=1)
    name: str = ""
    status: str = ""
    cost: float = 0.0
    created_at: datetime | None = Field(default=None, alias="createdAt")


class _Pagination(BaseModel):
    next_cursor: str | None = Field(default=None, alias="nextCursor")


class _Pods(BaseModel):
    pods: list[_Pod]
    pagination: _Pagination = _Pagination()


class _BillingRecord(BaseModel):
    pod_id: str = Field(alias="podId")
    total: float = Field(alias="totalAmount")


class _Billing(BaseModel):
    records: list[_BillingRecord]


class RunPod:
    """
    One account at RunPod.

    A pod knows no end: a container whose command has ended is usually started anew, and paid for on. What it runs must
    report its own end and idle, and whoever rented it must release it. RunPod bills each second of a pod, and has no
    spot machines in this version of its API.
    """

    def __init__(self, account: Account, create_seconds: float = wire.CREATE_SECONDS):
        self._account = account
        self._create_seconds = create_seconds

    async def offers(self) -> list[Offer]:
        """
        Return what the catalogue has in either cloud, in the numbers of GPUs that one machine can have.

        Stock is that of single GPUs, to spare the quota of sixty calls a minute; see ``offers_in_stock``.
        """
        return await self.offers_in_stock(1)

    async def offers_in_stock(self, gpu_count: int) -> list[Offer]:
        """Return what the catalogue has, available where one machine has so many GPUs free."""
        clouds = (self._catalogue(cloud, gpu_count) for cloud in ("SECURE", "COMMUNITY"))
        return [offer for offers in await asyncio.gather(*clouds) for offer in offers]

    async def rent(self, offer: Offer, order: Order) -> Rented:
        """Create a pod; see ``Provider.rent``."""
        body = {
            "name": order.name,
            "image": order.image,
            "gpu": {"id": offer.ref["gpu"], "count": offer.gpu_count},
            "cloud": offer.ref["cloud"],
            "env": dict(order.environment),
            "args": shlex.join(order.command),
            "disk": order.disk_gb,  # optional by the schema only
        }
        call = self._call("/v2/pods", "POST", body=body)
        answer = await wire.create(call, seconds=self._create_seconds)
        if answer.status not in (200, 201):
            raise self._not_created(answer)
        try:
            return _rented(wire.understood(_Pod, answer))
        except ResourceUnavailable as error:
            raise Unclear(error.message) from None

    async def machines(self) -> list[Rented]:
        """Return every pod, those of clusters included; turns pages where the list has any."""
        params, found = {"includeClusterPods": "true"}, list[Rented]()
        while True:
            answer = await self._read(self._call("/v2/pods", params=params))
            if isinstance(answer.body, list):
                answer = Answer(answer.status, {"pods": answer.body}, answer.headers)
            page = wire.understood(_Pods, answer)
            found += [_rented(pod) for pod in page.pods]
            if not page.pagination.next_cursor or page.pagination.next_cursor == params.get("cursor"):
                return found
            params = params | {"cursor": page.pagination.next_cursor}

    async def machine(self, machine_id: str) -> Rented | None:
        """Return one pod, if there is such a one."""
        answer = await self._read(self._call(f"/v2/pods/{quote(machine_id, safe='')}"), may_miss=True)
        return None if answer.status == 404 else _rented(wire.understood(_Pod, answer))

    async def release(self, machine_id: str) -> None:
        """Delete a pod with its disk; one of a cluster goes with its cluster only, which is an error."""
        await self._read(self._call(f"/v2/pods/{quote(machine_id, safe='')}", "DELETE"), may_miss=True)

    async def billed(self, machine_id: str, name: str) -> float | None:
        """Return the sum of a pod's billing records, which appear some time after what they are about."""
        call = self._call("/v2/billing/pods", params={"podId": machine_id, "bucketSize": "day"})
        records = wire.understood(_Billing, await self._read(call)).records
        amounts = [record.total for record in records if record.pod_id == machine_id]
        return sum(amounts) if amounts else None

    @property
    def self_release(self) -> SelfRelease:
        """How a pod deletes itself, with the key that RunPod puts into its environment."""
        url = self._account.url + "/v2/pods/{RUNPOD_POD_ID}"
        return SelfRelease(url=url, key_variable="RUNPOD_API_KEY")

    async def _catalogue(self, cloud: str, gpu_count: int) -> list[Offer]:
        asked = {"include": "AVAILABILITY", "product": "POD", "cloud": cloud, "count": str(gpu_count)}
        answer = await self._read(self._call("/v2/catalog/gpus", params=asked))
        return [offer for gpu in wire.understood(_Gpus, answer).gpus for offer in _offers(gpu, cloud.lower())]

    def _call(self, path: str, method: str = "GET", *, params: dict[str, str] | None = None, body: Any = None) -> Call:
        headers = {"Authorization": f"Bearer {self._account.get('api_key')}", "Accept": "application/json"}
        return Call(self._account.url + path, method, params or {}, headers, body)

    async def _read(self, call: Call, *, may_miss: bool = False) -> Answer:
        answer = await wire.read(call)
        match answer.status:
            case 200 | 204:
                return answer
            case 404 if may_miss:
                return answer
            case 401 | 403:
                raise wire.refused(_NAME, _PLATFORM, answer.status)
            case 402:
                raise wire.out_of_credit(_NAME, _PLATFORM)
            case status:
                raise ResourceUnavailable(f"{_NAME} answered {status}: {self._said(answer)}")

    def _not_created(self, answer: Answer) -> Exception:
        """Return the error of a refusal; none of them has created anything."""
        said = self._said(answer)
        match answer.status:
            case 401:
                return wire.refused(_NAME, _PLATFORM, 401)
            case 402:
                return wire.out_of_credit(_NAME, _PLATFORM)
            # A key that may not create pods is told so; anything else is about a pool that is closed to the account.
            case 403 if not said or "access denied" in said.lower():
                return wire.refused(_NAME, _PLATFORM, 403)
            case 400 if _NO_CAPACITY.search(said):
                return NoCapacity(f"{_NAME} has no such machine at the moment: {said}")
            case 403 | 404 | 409:
                return NoCapacity(f"{_NAME} does not rent this machine out ({answer.status}): {said}")
            case 400 | 413 | 422:
                return InvalidConfig(f"{_NAME} refuses the order ({answer.status}): {said}", platform=_PLATFORM)
            case status:
                return ResourceUnavailable(f"{_NAME} answered {status}: {said}")

    def _said(self, answer: Answer) -> str:
        problem: Any = answer.body if isinstance(answer.body, dict) else {}
        errors: Any = problem.get("errors")
        more = "; ".join(map(str, errors)) if isinstance(errors, list) else ""
        return wire.words(f"{problem.get('detail') or ''} {more}", self._account)


def _offers(gpu: _Gpu, cloud: str) -> Iterator[Offer]:
    price = gpu.price.get(cloud, 0.0)
    sold = gpu.secure if cloud == "secure" else gpu.community
    if not sold or price <= 0 or gpu.manufacturer == "AMD":  # the trainer's image is for CUDA
        return
    for count in _COUNTS:
        if count > gpu.max_count.get(cloud, 0):
            return
        yield Offer(
            provider=_PLATFORM,
            resource_id=resource_id(gpu.name, gpu.memory, count),
            name=f"{gpu.name} x{count} ({cloud} cloud)" if count > 1 else f"{gpu.name} ({cloud} cloud)",
            gpu_type=gpu.name,
            gpu_count=count,
            vram_gb=gpu.memory,
            hourly_rate=round(price * count, 6),
            billing_increment=1,
            minimum_charge=price * count / 3600,
            available=gpu.availability != "NONE",
            boot_seconds=_BOOT_SECONDS,
            ref={"gpu": gpu.id, "cloud": cloud.upper()},
        )


def _rented(pod: _Pod) -> Rented:
    return Rented(
        id=pod.id,
        name=pod.name,
        state=_STATES.get(pod.status, MachineState.BOOTING),
        hourly_rate=pod.cost or None,  # 0 of a pod that stands still
        created_at=pod.created_at,
        reason=pod.status if _STATES.get(pod.status) is MachineState.LOST else "",
    )
