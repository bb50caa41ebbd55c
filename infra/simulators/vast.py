"""
Vast.ai: a market whose offers can be taken once each, containers from it, and what they were charged.

Written after the vendor's API document. What that leaves out is as others have observed it: the redirect of a path
without its last slash, the 410 of an offer that is gone, ``env`` as an object, a bid's machine that was made but did
not start, the line break after an address. The answer to an account without credit is
assumed, and that the parts of a charge are not rounded as their sum is.
"""

import asyncio
import itertools
import json
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

from infra.simulators.cloud import ADMIN, Cloud, SimulatedMachine
from infra.simulators.entrance import Entrance
from infra.simulators.exchange import App, Asked, Reply, application
from infra.simulators.faults import FaultKind
from infra.simulators.vast_offers import Offers, passes, prices

Json = dict[str, Any]
ELSEWHERE = "https://cloud.vast.ai"  # where requests without a slash at the end are sent on to
_MACHINES_A_PAGE, _CHARGES_A_PAGE = 25, 500
_TOO_MANY = Reply(
    b"API requests too frequent endpoint threshold=4.5", 429, {"Content-Type": "text/plain; charset=utf-8"}
)


def create_vast(cloud: Cloud) -> App:
    """Make the application; it answers below ``/api/v0`` and ``/api/v1``, and as version 0 where none is named."""
    entrance = Entrance("vast", cloud, _TOO_MANY)
    market = _Market(cloud)

    async def answer(asked: Asked) -> Reply:
        if not asked.path.endswith("/") and ADMIN not in asked.path:
            return Reply(b"", 301, {"Location": f"{ELSEWHERE}{asked.path}/", "Content-Type": "text/html"})
        if not market.is_own(asked) and (reply := entrance.reply(asked)) is not None:
            return reply
        path = re.sub(r"^(/vast)?(/api)?(/v0)?", "", asked.path)
        match asked.method, path.strip("/").split("/"):
            case "GET", ["users", "current"]:
                return Reply({"id": 7, "email": "a@example.com", "balance": 25.0, "ssh_key": "", "sid": "s7"})
            case "POST", ["bundles"]:
                return market.search(json.loads(asked.content))
            case "PUT", ["asks", ask]:
                return await market.accept(int(ask), json.loads(asked.content))
            case "GET", ["v1", "instances"]:
                return _page_of_machines(cloud, asked.query)
            case "GET" | "DELETE" as method, ["instances", machine_id]:
                return market.act(method, machine_id)
            case "GET", ["charges"]:
                return _page_of_charges(cloud, asked.query)
            case _:
                return _error(404, "not_found", "The requested URL was not found.")

    return application(answer)


class _Market:
    """What is offered, and what can be done to machines that were rented."""

    def __init__(self, cloud: Cloud):
        self._cloud = cloud
        self._offers = Offers()
        self._contracts = itertools.count(30_000_001)

    def is_own(self, asked: Asked) -> bool:
        """Whether a container asks about itself, with its own key."""
        machine = self._cloud.get(asked.path.partition("/instances/")[2].strip("/"))
        return machine is not None and secrets.compare_digest(asked.token, machine.environment["CONTAINER_API_KEY"])

    def search(self, body: Json) -> Reply:
        """Return offers."""
        return Reply({"offers": self._offers.search(body)})

    async def accept(self, ask_id: int, body: Json) -> Reply:
        """Create a machine from an offer, which is gone then: its host offers another."""
        faults, bid = self._cloud.faults, body.get("price")
        if not body.get("image"):
            return _error(400, "invalid_args", "error 400/3471: Invalid args: 'image' is required")
        if not isinstance(body.get("env", {}), dict):
            return _error(400, "invalid_args", "error 400/3472: Invalid args: 'env' must be an object")
        if faults.take(FaultKind.OUT_OF_CREDIT):
            return _error(400, "insufficient_credit", "Your account lacks credit; see the billing page.")
        stale = faults.take(FaultKind.STALE_OFFER)
        ask = None if stale else self._offers.get(ask_id)
        if ask is None:
            return _error(
                404, "invalid_args", f"error 404/3603: no_such_ask Instance type by id {ask_id} is not available."
            )
        if bid is not None and bid < ask["min_bid"]:
            return _error(400, "invalid_price", f"error 400/3610: The bid must be at least {ask['min_bid']}.")
        self._offers.take(ask_id)
        lacking = faults.take(FaultKind.NO_CAPACITY)
        if lacking and bid is None:
            gone = f"error 410/3907: no_such_ask Instance type {ask_id} is no longer available."
            return _error(410, "no_such_ask", gone)
        machine = self._created(ask, body)
        if lacking:
            self._cloud.stop(machine)
            stopped = {"success": False, "error": "bid_too_low", "msg": "The instance was created, but is stopped."}
            return Reply(stopped | {"new_contract": int(machine.id)})
        if faults.take(FaultKind.ERROR_AFTER_CREATE):
            return _error(500, "server_error", "Internal error.")
        if late := faults.take(FaultKind.TIMEOUT_AFTER_CREATE):
            await asyncio.sleep(late.value)
        own_key = machine.environment["CONTAINER_API_KEY"]
        return Reply({"success": True, "new_contract": int(machine.id), "instance_api_key": own_key})

    def act(self, method: str, machine_id: str) -> Reply:
        """Show or destroy a machine."""
        machine = self._cloud.get(machine_id)
        if machine is None:
            return _error(404, "no_such_instance", f"Instance {machine_id} not found.")
        if method == "GET":
            return Reply({"instances": _shown(machine)})
        self._cloud.terminate(machine)
        return Reply({"success": True, "msg": "Instance destroyed successfully"})

    def _created(self, ask: Json, body: Json) -> SimulatedMachine:
        machine_id = str(next(self._contracts))
        given = {
            "CONTAINER_ID": machine_id,
            "CONTAINER_API_KEY": secrets.token_hex(32),
            "VAST_CONTAINERLABEL": f"C.{machine_id}",
            "PUBLIC_IPADDR": "192.0.2.45",
        }
        ports = {name: value for name, value in body.get("env", {}).items() if name.startswith("-")}
        environment = {name: value for name, value in body.get("env", {}).items() if name not in ports}
        price = ask["dph_base"] if body.get("price") is None else body["price"]
        rate = prices(price, body.get("disk", 8))["dph_total"]
        command = [part for part in (body.get("onstart"), *body.get("args", [])) if part] or ["/bin/true"]
        return self._cloud.create(
            machine_id, body.get("label", ""), command, environment | given, rate, ask=ask, asked=body
        )


def _status(machine: SimulatedMachine) -> tuple[str | None, str]:
    """
    Return a container's status, and whether it still has its hardware.

    One that was bid for is stopped when others pay more, and is meant to be; the host of any other goes off line.
    """
    bid = machine.details["asked"].get("price") is not None
    if machine.lost:
        return ("exited", "stopped") if bid else ("offline", "running")
    if machine.ended:
        return "exited", "running" if machine.started else "stopped"
    if machine.started:
        return "running", "running"
    return None if time.time() < machine.created + min(machine.boot_seconds, 10) / 2 else "loading", "running"


def _shown(machine: SimulatedMachine) -> Json:
    """Return a machine as the API shows it; everything that it was given is there for everyone to read."""
    ask, asked = machine.details["ask"], machine.details["asked"]
    status, hardware = _status(machine)
    intended = "running" if hardware == "running" else "stopped"
    about_ask = {name: ask[name] for name in ("machine_id", "host_id", "gpu_name", "gpu_arch", "num_gpus", "gpu_ram")}
    about_ask |= {name: ask[name] for name in ("cpu_cores_effective", "cpu_ram", "geolocation", "min_bid", "dph_base")}
    messages = {"loading": "Pulling from the registry", "running": f"success, running {asked['image']}"}
    return about_ask | {
        "id": int(machine.id),
        "label": machine.name or None,
        "actual_status": status,
        "intended_status": intended,
        "cur_state": hardware,
        "next_state": hardware,
        "status_msg": messages.get(status or ""),
        "image_uuid": asked["image"],
        "image_args": asked.get("args", []),
        "onstart": asked.get("onstart"),
        "image_runtype": asked.get("runtype", "args"),
        "extra_env": [[name, value] for name, value in asked.get("env", {}).items()],
        "public_ipaddr": "192.0.2.45\n",
        "ssh_host": "ssh5.vast.ai",
        "ssh_port": 10882,
        "disk_space": float(asked.get("disk", 8)),
        "is_bid": asked.get("price") is not None,
        "dph_total": machine.hourly_rate,
        "start_date": machine.created,
        "end_date": machine.created + ask["duration"],
        "duration": ask["duration"],
        "gpu_util": None,
    }


def _page_of_machines(cloud: Cloud, query: Mapping[str, str]) -> Reply:
    filters: Json = json.loads(query.get("select_filters", "{}"))
    shown = [_shown(machine) for machine in cloud.listed()]
    shown = [one for one in shown if all(passes(one[field], chosen) for field, chosen in filters.items())]
    page, after = _page(shown, query, _MACHINES_A_PAGE, _MACHINES_A_PAGE)
    counts = {"instances_found": len(page), "total_instances": len(shown)}
    return Reply({"success": True, "instances": page, "next_token": after} | counts)


def _page_of_charges(cloud: Cloud, query: Mapping[str, str]) -> Reply:
    days = json.loads(query.get("select_filters", "{}")).get("day", {})
    if not {"gte", "lte"} <= days.keys():
        msg = "Must provide both 'day' gte and lte filters for instance charges"
        return Reply({"success": False, "msg": msg}, 400)
    machines = sorted(cloud.machines.values(), key=lambda one: one.created, reverse=True)
    rows = [_charge(cloud, one) for one in machines if days["gte"] <= one.created <= days["lte"]]
    page, after = _page(rows, query, 100, _CHARGES_A_PAGE)
    return Reply({"success": True, "count": len(page), "total": len(rows), "results": page, "next_token": after})


def _charge(cloud: Cloud, machine: SimulatedMachine) -> Json:
    span = {"start": int(machine.created), "end": int(machine.gone or time.time())}
    amount = cloud.cost(machine)
    part = span | {"type": "gpu", "source": None, "description": "", "amount": amount, "metadata": {}, "items": []}
    return span | {
        "type": "instance",
        "source": f"instance-{machine.id}",
        "description": f"Instance {machine.id} Charges",
        "amount": round(amount, 3),
        "metadata": {"label": machine.name},
        "items": [part],
    }


def _page(rows: list[Json], query: Mapping[str, str], usual: int, most: int) -> tuple[list[Json], str | None]:
    """Return a page and the token of the next; the token is opaque to clients, here it is where the page begins."""
    begin, length = int(query.get("after_token", "0")), min(int(query.get("limit", usual)), most)
    end = begin + length
    return rows[begin:end], str(end) if end < len(rows) else None


def _error(status: int, code: str, message: str) -> Reply:
    return Reply({"success": False, "error": code, "msg": message}, status)
