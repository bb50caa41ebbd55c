"""The offers of the simulated Vast.ai: which hosts there are, what they ask, and how they are searched."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

Json = dict[str, Any]
_FOUND_AT_ONCE = 64
_HOURS_A_MONTH = 730
_STORAGE_COST = 0.05  # US dollars a GB and month
# GPU, MB of its memory, how many, US dollars an hour, least bid, GB of disk, place
_HOSTS = (
    ("RTX 3090", 24576, 1, 0.16, 0.09, 400.0, "Poland, PL"),
    ("RTX 4090", 24564, 1, 0.36, 0.2, 500.0, "Texas, US"),
    ("RTX 4090", 24564, 2, 0.74, 0.41, 900.0, "Czechia, CZ"),
    ("A100 SXM4", 81920, 1, 1.05, 0.62, 1200.0, "Quebec, CA"),
    ("H100 SXM", 81559, 1, 2.1, 1.4, 2000.0, "Iceland, IS"),
    ("H100 SXM", 81559, 8, 16.4, 11.0, 8000.0, "Iceland, IS"),
)
_HOSTS_OF_A_KIND = 4
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": lambda value, other: value == other,
    "neq": lambda value, other: value != other,
    "gt": lambda value, other: value > other,
    "gte": lambda value, other: value >= other,
    "lt": lambda value, other: value < other,
    "lte": lambda value, other: value <= other,
    "in": lambda value, other: value in other,
    "notin": lambda value, other: value not in other,
}


class Offers:
    """What is offered at the moment; each offer can be taken once, and its host makes another then."""

    def __init__(self):
        self._ids = itertools.count(20_000_001)
        self._asks: dict[int, Json] = {}
        for host in _HOSTS:
            for number in range(_HOSTS_OF_A_KIND):
                self._list(_ask(host, 1 + number / 20))

    def get(self, ask_id: int) -> Json | None:
        """Return an offer, if it is not gone."""
        return self._asks.get(ask_id)

    def take(self, ask_id: int) -> None:
        """Take an offer from the market."""
        self._list(self._asks.pop(ask_id))

    def search(self, body: Json) -> list[Json]:
        """Return the offers that pass every filter, at most so many."""
        disk = body.get("allocated_storage", 8)
        found = [ask | prices(ask["dph_base"], disk) for ask in self._asks.values()]
        for field, filters in body.items():
            if isinstance(filters, dict):
                found = [ask for ask in found if passes(ask[field], filters)]
        for field, direction in reversed(body.get("order", [])):
            found.sort(key=lambda ask: ask[field], reverse=direction == "desc")
        return found[: min(body.get("limit", _FOUND_AT_ONCE), _FOUND_AT_ONCE)]

    def _list(self, ask: Json) -> None:
        number = next(self._ids)
        self._asks[number] = ask | {"id": number, "ask_contract_id": number}


def _ask(host: tuple[str, int, int, float, float, float, str], dearness: float) -> Json:
    gpu, memory, count, price, least_bid, disk, place = host
    return {
        "machine_id": int(price * 1000 * dearness),
        "host_id": 7,
        "gpu_name": gpu,
        "gpu_arch": "nvidia",
        "num_gpus": count,
        "gpu_ram": memory,
        "gpu_total_ram": memory * count,
        "cpu_cores": 64,
        "cpu_cores_effective": 16.0 * count,
        "cpu_ram": 65536 * count,
        "disk_space": disk,
        "dph_base": round(price * dearness, 6),
        "min_bid": round(least_bid * dearness, 6),
        "storage_cost": _STORAGE_COST,
        "geolocation": place,
        "reliability": 0.995,
        "reliability2": 0.995,
        "cuda_max_good": 12.8,
        "compute_cap": 890,
        "direct_port_count": 42,
        "inet_up": 800.0,
        "inet_down": 900.0,
        "duration": 2_000_000.0,
        "rentable": True,
        "rented": False,
        "verified": True,
        "verification": "verified",
    }


def prices(price: float, disk: float) -> Json:
    """Return what a machine costs an hour at a price without its disk, and with it."""
    return {"dph_base": price, "dph_total": round(price + disk * _STORAGE_COST / _HOURS_A_MONTH, 6)}


def passes(value: Any, filters: Mapping[str, Any]) -> bool:
    """Return whether a value passes all filters: ``{"gte": 24000}``."""
    return all(_OPERATORS[operator](value, other) for operator, other in filters.items())
