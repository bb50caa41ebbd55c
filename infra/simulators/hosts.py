"""The platforms that serve adapters and are simulated: how to make each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from infra.simulators.exchange import App
from infra.simulators.vllm import VllmServer, create_vllm


@dataclass(frozen=True)
class SimulatedHost:
    """One platform; ``credentials`` are what connecting takes where it is served at an address."""

    application: Callable[[], App]
    credentials: Callable[[str], Mapping[str, str]]


def _address(address: str) -> Mapping[str, str]:
    return {"base_url": address}


# By the platform's name; each answers where that platform's address is /NAME on a loopback port, or its root.
SIMULATED_HOSTS: Mapping[str, SimulatedHost] = {
    "vllm": SimulatedHost(lambda: create_vllm(VllmServer()), _address),
}
