"""
Vast.ai: containers on other people's machines, from a market whose offers come and go by the minute.

The wire contract is at https://docs.vast.ai/api-reference. Every path ends with a slash: without it the vendor sends
the request on to another host.
"""

import json
import time
from collections import defaultdict
from typing import Any
from urllib.parse import quote

from infra.providers.base import Account, MachineState, NoCapacity, Offer, Order, Rented
from infra.providers.vast_answers import (
    NAME,
    PLATFORM,
    charge_of,
    fields_of,
    good,
    is_gone,
    is_refusal,
    issue_of,
    machine_of,
    offers_of,
)
from infra.providers.wire import CREATE_SECONDS, create, out_of_credit, pace, paced, read, refused
from infra.vendor_http import Answer, Call
from peft_studio.errors import ResourceUnavailable
from peft_studio.remote.self_release import SelfRelease

ASK_SECONDS = 4.5  # between two machines that one account asks for; the vendor's own rule, which no simulator has
_DISK_GB = 50  # that listed prices include; the vendor charges for disk by the gigabyte
_LEAST_DISK_GB = 8
_LASTING_SECONDS = 86_400  # that a host must stay; few jobs take longer
_RELIABILITY = 0.95  # of a host, over time, as the vendor measures it
# A search finds the 64 cheapest, so that large GPUs are found only where small ones are left out.
_SEARCHED_GB = ((0, 20), (20, 40), (40, 60), (60, 100), (100, 1000))
_FOUND_AT_ONCE = 64
_KEPT = 3  # offers of one kind, the cheapest: when one has gone stale the next may do
_PAGES = 1000  # of 25 machines or 500 charges: more is no list but a fault
_CHARGED_SECONDS = 40 * 86_400  # how far back a machine's charges are looked for


class Vast:
    """One account at Vast.ai; ``ask_seconds`` is how far apart it asks for machines, by the vendor's own rule."""

    def __init__(self, account: Account, create_seconds: float = CREATE_SECONDS, ask_seconds: float | None = None):
        self._account = account
        self._create_seconds = create_seconds
        self._ask_seconds = pace(account.url, ASK_SECONDS) if ask_seconds is None else ask_seconds

    async def offers(self) -> list[Offer]:
        """Return the cheapest few of each kind, to rent for as long as one likes and to bid for."""
        kinds: defaultdict[tuple[str, bool], list[Offer]] = defaultdict(list)
        for least, below in _SEARCHED_GB:
            answer = good(await self._read(self._call("/bundles/", "POST", body=_search(least, below))))
            for row in fields_of(answer.body).get("offers") or []:
                for offer in offers_of(row):
                    kinds[offer.resource_id, offer.spot].append(offer)
        return [offer for kind in kinds.values() for offer in sorted(kind, key=lambda offer: offer.hourly_rate)[:_KEPT]]

    async def rent(self, offer: Offer, order: Order) -> Rented:
        """Accept an offer, or bid for it; nothing is created that cannot start at once, or has too small a disk."""
        if offer.storage_gb is not None and order.disk_gb > offer.storage_gb:
            raise NoCapacity(f"The host at Vast.ai has {offer.storage_gb:.0f} GB of disk, not {order.disk_gb}.")
        body: dict[str, Any] = {
            "image": order.image,
            "label": order.name,
            "disk": max(order.disk_gb, _LEAST_DISK_GB),
            "runtype": "args",
            "onstart": order.command[0],  # with this type it takes the place of the image's entry point
            "args": list(order.command[1:]),
            "env": dict(order.environment),
            "target_state": "running",
            "cancel_unavail": True,
        }
        if offer.spot:
            body["price"] = float(offer.ref["bid"])
        async with paced(PLATFORM, self._account.get("api_key"), self._ask_seconds):
            call = self._call(f"/asks/{offer.ref['ask']}/", "PUT", body=body)
            answer = await create(call, seconds=self._create_seconds)
        said = fields_of(answer.body)
        made = said.get("new_contract")
        if not made:
            raise issue_of(answer)
        if answer.status == 200 and said.get("success") and not said.get("error"):
            return Rented(id=str(made), name=order.name, state=MachineState.BOOTING)
        reason = "Vast.ai made it and did not start it: others bid more by now"
        return Rented(id=str(made), name=order.name, state=MachineState.ENDED, reason=reason)

    async def machines(self) -> list[Rented]:
        """Return every machine of the account that is not destroyed: all of them cost money, stopped ones too."""
        rows = await self._pages("/instances/", {"limit": "25"}, "instances", version="v1")
        return [machine_of(row, self._account) for row in rows]

    async def machine(self, machine_id: str) -> Rented | None:
        """Return one machine."""
        answer = await self._read(self._call(f"/instances/{quote(machine_id, safe='')}/"))
        row = None if is_gone(answer) else fields_of(good(answer).body).get("instances")
        return machine_of(row, self._account) if row else None

    async def release(self, machine_id: str) -> None:
        """Destroy a machine: one that is merely stopped is still paid for."""
        answer = await self._read(self._call(f"/instances/{quote(machine_id, safe='')}/", "DELETE"))
        if not is_gone(answer) and not fields_of(good(answer).body).get("success"):
            raise ResourceUnavailable("Vast.ai did not destroy the machine; it is there and is paid for.")

    async def billed(self, machine_id: str, name: str) -> float | None:
        """Return what a machine was charged for its GPUs, its disk and its traffic."""
        until = int(time.time()) + 86_400
        days = {"day": {"gte": until - _CHARGED_SECONDS, "lte": until}, "type": {"in": ["instance"]}}
        rows = await self._pages("/charges/", {"select_filters": json.dumps(days), "limit": "500"}, "results")
        charges = [charge for row in rows if (charge := charge_of(row, machine_id)) is not None]
        return sum(charges) if charges else None

    @property
    def self_release(self) -> SelfRelease:
        """How a container destroys itself, with the key that Vast.ai puts into its environment."""
        url = self._account.url.rstrip("/") + "/instances/{CONTAINER_ID}/"
        return SelfRelease(url=url, key_variable="CONTAINER_API_KEY")

    async def _pages(self, path: str, params: dict[str, str], field: str, version: str = "v0") -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for _ in range(_PAGES):
            said = fields_of(good(await self._read(self._call(path, params=params, version=version))).body)
            if not isinstance(said.get(field), list):
                break
            rows += said[field]
            if not said.get("next_token"):
                return rows
            params = params | {"after_token": str(said["next_token"])}
        raise ResourceUnavailable("Vast.ai did not answer with a list that ends; try again later.")

    async def _read(self, call: Call) -> Answer:
        answer = await read(call)
        if is_refusal(answer):
            raise refused(NAME, PLATFORM, answer.status)
        if answer.status == 402:
            raise out_of_credit(NAME, PLATFORM)
        return answer

    def _call(
        self,
        path: str,
        method: str = "GET",
        params: dict[str, str] | None = None,
        body: Any = None,
        version: str = "v0",
    ) -> Call:
        """Make a request to version 0 of the API, whose address the account's is, or to the one beside it."""
        url = self._account.url.rstrip("/")
        if version != "v0":
            url = f"{url.removesuffix('/v0')}/{version}"
        headers = {"Authorization": f"Bearer {self._account.get('api_key')}", "Accept": "application/json"}
        return Call(url + path, method, params or {}, headers, body)


def _search(least_gb: int, below_gb: int) -> dict[str, Any]:
    return {
        "type": "ondemand",  # each offer tells the least bid, too
        "verified": {"eq": True},
        "rentable": {"eq": True},
        "gpu_arch": {"eq": "nvidia"},
        "gpu_ram": {"gte": least_gb * 1000, "lt": below_gb * 1000},
        "num_gpus": {"in": [1, 2, 4, 8]},
        "reliability": {"gte": _RELIABILITY},
        "duration": {"gte": _LASTING_SECONDS},
        "disk_space": {"gte": _DISK_GB},
        "allocated_storage": _DISK_GB,
        "order": [["dph_total", "asc"], ["reliability", "desc"]],
        "limit": _FOUND_AT_ONCE,
    }
