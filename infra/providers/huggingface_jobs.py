"""
Hugging Face Jobs: containers that end by themselves, at the latest when they were told to.

The wire contract is that of ``huggingface_hub`` (``HfApi.run_job`` and its neighbours), spoken here by hand so that
one policy of patience and errors holds for all vendors. Machines are of a flavour, disk included, and start when one is
free: a job that finds none waits, which costs nothing.
"""

import asyncio
import hashlib
import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, Field, ValidationError

from infra.providers.base import Account, MachineState, NoCapacity, Offer, Order, Rented, Unclear
from infra.providers.slugs import resource_id
from infra.providers.wire import CREATE_SECONDS, PATIENCE_SECONDS, create, out_of_credit, read, refused, words
from infra.vendor_http import Answer, Call
from peft_studio.errors import InvalidConfig, ResourceUnavailable, StudioError

_PLATFORM, _NAME = "huggingface", "Hugging Face"
_MINUTE = 60
_BOOT_SECONDS = 30.0
_PAGES = 1000
_NAMESPACES: dict[str, str] = {}  # whose a token is never changes, and asking for it is strictly rationed


class _Accelerator(BaseModel):
    type: str
    model: str
    quantity: int
    vram: str  # of all of them


class _Flavor(BaseModel):
    """A kind of machine, and what it costs: millionths of a US dollar a minute."""

    name: str
    title: str = Field(alias="prettyName")
    cpu: str
    ram: str
    storage: str = Field(default="", alias="ephemeralStorage")
    accelerator: _Accelerator | None = None
    price: int = Field(alias="unitCostMicroUSD")
    unit: str = Field(alias="unitLabel")

    @property
    def hourly_rate(self) -> float:
        """US dollars."""
        return self.price * 60 / 1e6


class _Status(BaseModel):
    stage: str
    message: str | None = None


class _Durations(BaseModel):
    running: float | None = Field(default=None, alias="runningSecs")


class _Job(BaseModel):
    id: str
    flavor: str | None = None
    labels: Mapping[str, str] | None = None
    status: _Status
    created: datetime | None = Field(default=None, alias="createdAt")
    durations: _Durations | None = None

    @property
    def is_over(self) -> bool:
        """Whether it costs nothing any more."""
        return self.status.stage in ("COMPLETED", "ERROR", "CANCELED", "DELETED")


class HuggingFaceJobs:
    """Jobs of the user that a token belongs to, or of the organization that is to pay."""

    self_release = None  # a job that has ended costs nothing

    def __init__(self, account: Account, create_seconds: float = CREATE_SECONDS):
        self._account = account
        self._create_seconds = create_seconds

    async def offers(self) -> list[Offer]:
        """Return every flavour that has GPUs of a kind the trainer can use, and those with none."""
        flavors = (await self._flavors()).values()
        return [_offer(flavor) for flavor in flavors if not flavor.accelerator or flavor.accelerator.type == "gpu"]

    async def rent(self, offer: Offer, order: Order) -> Rented:
        """Start a job; the vendor ends it after the order's longest time. A flavour's disk is as large as it is."""
        if offer.storage_gb is not None and order.disk_gb > offer.storage_gb:
            raise NoCapacity(f"Hugging Face's {offer.name} has {offer.storage_gb:.0f} GB of disk, not {order.disk_gb}.")
        body = {
            "dockerImage": order.image,
            "command": list(order.command),
            "arguments": [],
            "environment": dict(order.environment),
            "flavor": offer.ref["flavor"],
            "timeoutSeconds": order.max_seconds,
            "labels": {"name": order.name},
        }
        try:
            namespace = await self._namespace(self._create_seconds)
        except ResourceUnavailable as error:
            raise Unclear(error.message) from None
        call = self._call(f"/api/jobs/{namespace}", "POST", body)
        answer = await create(call, seconds=self._create_seconds)
        match answer.status:
            case 200 | 201:
                try:
                    return _rented(_Job.model_validate(answer.body), None, self._account)
                except ValidationError:
                    raise Unclear("Hugging Face accepted the job, and answered what cannot be read.") from None
            case 400 | 404 | 409 | 422 if await self._is_sold_out(offer, answer):
                raise NoCapacity(f"Hugging Face has no {offer.name} at the moment; another offer may do.")
            case 400 | 404 | 409 | 422:
                raise InvalidConfig("Hugging Face finds fault with the job; its image may be one that it cannot have.")
            case _:
                raise self._issue(answer)

    async def machines(self) -> list[Rented]:
        """Return the jobs that wait or run: those that are over cost nothing."""
        jobs: list[_Job] = []
        path, query = f"/api/jobs/{await self._namespace()}", "stage=SCHEDULING&stage=RUNNING"
        for _ in range(_PAGES):
            answer = await read(self._call(f"{path}?{query}"))
            if answer.status != 200 or not isinstance(answer.body, list):
                raise self._issue(answer)
            jobs += [_parsed(row) for row in cast(list[Any], answer.body)]
            query = _next_page(answer)
            if not query:
                break
        else:
            raise ResourceUnavailable("Hugging Face did not answer with a list that ends; try again later.")
        flavors = await self._flavors()
        return [_rented(job, flavors.get(job.flavor or ""), self._account) for job in jobs if not job.is_over]

    async def machine(self, machine_id: str) -> Rented | None:
        """Return one job; None where it was cancelled, too."""
        job, flavors = await asyncio.gather(self._job(machine_id), self._flavors())
        if job is None or job.status.stage in ("CANCELED", "DELETED"):
            return None
        return _rented(job, flavors.get(job.flavor or ""), self._account)

    async def release(self, machine_id: str) -> None:
        """Cancel a job, whose disk goes with it."""
        answer = await read(
            self._call(f"/api/jobs/{await self._namespace()}/{quote(machine_id, safe='')}/cancel", "POST")
        )
        if answer.status in (200, 202, 204) or _is_gone(answer):
            return
        job = await self._job(machine_id)  # one that is over may not be cancelled
        if job is not None and not job.is_over:
            raise self._issue(answer)

    async def billed(self, machine_id: str, name: str) -> float | None:
        """Return the minutes it ran at the flavour's price; None where the vendor does not tell either."""
        job, flavors = await asyncio.gather(self._job(machine_id), self._flavors())
        flavor = flavors.get(job.flavor or "") if job else None
        if job is None or flavor is None or job.durations is None:
            return None
        return math.ceil((job.durations.running or 0) / _MINUTE) * flavor.price / 1e6

    async def _job(self, machine_id: str) -> _Job | None:
        answer = await read(self._call(await self._path(machine_id)))
        if _is_gone(answer):
            return None
        if answer.status != 200:
            raise self._issue(answer)
        return _parsed(answer.body)

    async def _flavors(self) -> dict[str, _Flavor]:
        answer = await read(self._call("/api/jobs/hardware"))
        if answer.status != 200 or not isinstance(answer.body, list):
            raise self._issue(answer)
        flavors: dict[str, _Flavor] = {}
        for row in cast(list[Any], answer.body):
            try:
                flavor = _Flavor.model_validate(row)
            except ValidationError:
                continue
            if flavor.unit == "minute":  # what a price is for is not known otherwise
                flavors[flavor.name] = flavor
        return flavors

    async def _is_sold_out(self, offer: Offer, answer: Answer) -> bool:
        said = str(answer.body).lower()
        if "capacity" in said or "available" in said:
            return True
        return offer.ref["flavor"] not in await self._flavors()

    async def _path(self, machine_id: str) -> str:
        return f"/api/jobs/{await self._namespace()}/{quote(machine_id, safe='')}"

    async def _namespace(self, patience: float = PATIENCE_SECONDS) -> str:
        if named := self._account.get("namespace"):
            return quote(named, safe="")
        key = hashlib.sha256(f"{self._account.url}\0{self._account.get('api_key')}".encode()).hexdigest()
        if key not in _NAMESPACES:
            answer = await read(self._call("/api/whoami-v2"), patience)
            name = cast(dict[str, Any], answer.body).get("name") if isinstance(answer.body, dict) else None
            if answer.status != 200 or not isinstance(name, str):
                raise self._issue(answer)
            _NAMESPACES[key] = name
        return _NAMESPACES[key]

    def _call(self, path: str, method: str = "GET", body: Any = None) -> Call:
        headers = {"Authorization": f"Bearer {self._account.get('api_key')}", "Accept": "application/json"}
        return Call(self._account.url.rstrip("/") + path, method, headers=headers, body=body)

    def _issue(self, answer: Answer) -> StudioError:
        match answer.status:
            case 401 | 403:
                return refused(_NAME, _PLATFORM, answer.status)
            case 402:
                return out_of_credit(_NAME, _PLATFORM)
            case status:
                return ResourceUnavailable(f"Hugging Face gave no answer that can be read ({status}); try again later.")


def _offer(flavor: _Flavor) -> Offer:
    gpu = flavor.accelerator
    count = gpu.quantity if gpu else 0
    vram = _number(gpu.vram) if gpu else None
    each = vram / count if vram and count else None
    return Offer(
        provider=_PLATFORM,
        resource_id=resource_id(gpu.model, each, count) if gpu else flavor.name,
        name=flavor.title,
        gpu_type=gpu.model if gpu else None,
        gpu_count=count,
        vram_gb=each,
        cpu_cores=int(_number(flavor.cpu) or 0) or None,
        ram_gb=_number(flavor.ram),
        storage_gb=_number(flavor.storage),
        hourly_rate=flavor.hourly_rate,
        billing_increment=_MINUTE,
        minimum_charge=flavor.price / 1e6,
        boot_seconds=_BOOT_SECONDS,
        ref={"flavor": flavor.name},
    )


def _rented(job: _Job, flavor: _Flavor | None, account: Account) -> Rented:
    state, code = _state(job.status)
    return Rented(
        id=job.id,
        name=(job.labels or {}).get("name", ""),
        state=state,
        hourly_rate=flavor.hourly_rate if flavor else None,
        created_at=job.created,
        exit_code=code,
        reason=words(job.status.message, account),
    )


def _state(status: _Status) -> tuple[MachineState, int | None]:
    """Return what a job is doing and how its command ended; a failure without an exit code is not the command's."""
    match status.stage:
        case "RUNNING":
            return MachineState.RUNNING, None
        case "COMPLETED":
            return MachineState.ENDED, 0
        case "ERROR":
            told = re.search(r"exit code:? (\d+)", status.message or "")
            return (MachineState.ENDED, int(told[1])) if told else (MachineState.LOST, None)
        case "CANCELED" | "DELETED":
            return MachineState.LOST, None
        case _:
            return MachineState.BOOTING, None


def _parsed(row: Any) -> _Job:
    try:
        return _Job.model_validate(row)
    except ValidationError:
        raise ResourceUnavailable("Hugging Face shows a job in a way that cannot be read; see its pages.") from None


def _is_gone(answer: Answer) -> bool:
    return answer.status == 404 and isinstance(answer.body, dict)


def _next_page(answer: Answer) -> str:
    """Return the query of what follows, if anything does: the key goes to no other host, whatever the link says."""
    link = re.search(r'<([^>]+)>; *rel="next"', answer.headers.get("Link", ""))
    return urlsplit(link[1]).query if link else ""


def _number(text: str) -> float | None:
    """Return the number in words like ``16 GB`` and ``4 vCPU``."""
    found = re.search(r"\d+(\.\d+)?", text)
    return float(found[0]) if found else None
