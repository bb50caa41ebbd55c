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
from typing import Any, cast
from urllib.parse import quote, urlsplit

from pydantic import ValidationError

from infra.providers.base import Account, NoCapacity, Offer, Order, Rented, Unclear
from infra.providers.huggingface_answers import MINUTE, PLATFORM, Flavor, Job, offer_of, parsed, rented_of
from infra.providers.wire import CREATE_SECONDS, PATIENCE_SECONDS, create, out_of_credit, read, refused
from infra.vendor_http import Answer, Call
from peft_studio.errors import InvalidConfig, ResourceUnavailable, StudioError

_NAME = "Hugging Face"
_PAGES, _NEWEST_PAGES = 1000, 3
_NAMESPACES: dict[str, str] = {}  # whose a token is never changes, and asking for it is strictly rationed


class HuggingFaceJobs:
    """Jobs of the user that a token belongs to, or of the organization that is to pay."""

    self_release = None  # a job that has ended costs nothing

    def __init__(self, account: Account, create_seconds: float = CREATE_SECONDS):
        self._account = account
        self._create_seconds = create_seconds

    async def offers(self) -> list[Offer]:
        """Return every flavour that has GPUs of a kind the trainer can use, and those with none."""
        flavors = (await self._flavors()).values()
        return [offer_of(flavor) for flavor in flavors if not flavor.accelerator or flavor.accelerator.type == "gpu"]

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
                    return rented_of(Job.model_validate(answer.body), None, self._account)
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
        jobs = await self._jobs("stage=SCHEDULING&stage=RUNNING")
        flavors = await self._flavors()
        return [rented_of(job, flavors.get(job.flavor or ""), self._account) for job in jobs if not job.is_over]

    async def ended(self, name: str) -> Rented | None:
        """Return the job of a name that is over, if it is among the newest of those."""
        jobs = await self._jobs("stage=COMPLETED&stage=ERROR&stage=CANCELED", _NEWEST_PAGES)
        found = (rented_of(job, None, self._account) for job in jobs if job.is_over)
        return next((job for job in found if job.name == name), None)

    async def _jobs(self, query: str, newest: int | None = None) -> list[Job]:
        """Return what a query finds, on all pages or on so many of the newest."""
        jobs: list[Job] = []
        path = f"/api/jobs/{await self._namespace()}"
        for _ in range(newest or _PAGES):
            answer = await read(self._call(f"{path}?{query}"))
            if answer.status != 200 or not isinstance(answer.body, list):
                raise self._issue(answer)
            jobs += [parsed(row) for row in cast(list[Any], answer.body)]
            query = _next_page(answer)
            if not query:
                return jobs
        if newest:
            return jobs
        raise ResourceUnavailable("Hugging Face did not answer with a list that ends; try again later.")

    async def machine(self, machine_id: str) -> Rented | None:
        """Return one job; None where it was cancelled, too."""
        job, flavors = await asyncio.gather(self._job(machine_id), self._flavors())
        if job is None or job.status.stage in ("CANCELED", "DELETED"):
            return None
        return rented_of(job, flavors.get(job.flavor or ""), self._account)

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
        return math.ceil((job.durations.running or 0) / MINUTE) * flavor.price / 1e6

    async def _job(self, machine_id: str) -> Job | None:
        answer = await read(self._call(await self._path(machine_id)))
        if _is_gone(answer):
            return None
        if answer.status != 200:
            raise self._issue(answer)
        return parsed(answer.body)

    async def _flavors(self) -> dict[str, Flavor]:
        answer = await read(self._call("/api/jobs/hardware"))
        if answer.status != 200 or not isinstance(answer.body, list):
            raise self._issue(answer)
        flavors: dict[str, Flavor] = {}
        for row in cast(list[Any], answer.body):
            try:
                flavor = Flavor.model_validate(row)
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
                return refused(_NAME, PLATFORM, answer.status)
            case 402:
                return out_of_credit(_NAME, PLATFORM)
            case status:
                return ResourceUnavailable(f"Hugging Face gave no answer that can be read ({status}); try again later.")


def _is_gone(answer: Answer) -> bool:
    return answer.status == 404 and isinstance(answer.body, dict)


def _next_page(answer: Answer) -> str:
    """Return the query of what follows, if anything does: the key goes to no other host, whatever the link says."""
    link = re.search(r'<([^>]+)>; *rel="next"', answer.headers.get("Link", ""))
    return urlsplit(link[1]).query if link else ""
