"""The platforms that serve adapters and are simulated: how to make each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from infra.simulators.accounts import GOOD
from infra.simulators.exchange import App
from infra.simulators.faults import Faults
from infra.simulators.fireworks import create_fireworks
from infra.simulators.hosting import Hosting
from infra.simulators.huggingface_endpoints import OWNER, create_huggingface_endpoints
from infra.simulators.lorax import LoraxServer, create_lorax
from infra.simulators.modal import TOKEN_ID, create_modal
from infra.simulators.ollama_models import CreatedModels
from infra.simulators.predibase import create_predibase
from infra.simulators.replicate import MODEL, VERSION, create_replicate
from infra.simulators.sources import Trouble, create_ollama
from infra.simulators.together import create_together
from infra.simulators.vllm import VllmServer, create_vllm


@dataclass(frozen=True)
class SimulatedHost:
    """
    One platform; ``credentials`` are what connecting takes where it is served at an address.

    ``platform`` is its name where another simulator has that already.
    """

    application: Callable[[Hosting], App]
    credentials: Callable[[str], Mapping[str, str]]
    platform: str | None = None

    def hosting(self, faults: Faults | None = None, boot_seconds: float = 2.0) -> Hosting:
        """Make what lies behind the application."""
        return Hosting(boot_seconds=boot_seconds, faults=faults)


def _api_key(address: str) -> Mapping[str, str]:
    return {"api_key": GOOD}


def _address(address: str) -> Mapping[str, str]:
    return {"base_url": address}


def _address_and_key(address: str) -> Mapping[str, str]:
    return {"base_url": address, "api_key": GOOD}


# By the platform's name; each answers where that platform's address is /NAME on a loopback port, or its root.
SIMULATED_HOSTS: Mapping[str, SimulatedHost] = {
    "vllm": SimulatedHost(lambda hosting: create_vllm(VllmServer(hosting=hosting)), _address),
    "lorax": SimulatedHost(lambda hosting: create_lorax(LoraxServer(hosting=hosting)), _address_and_key),
    "ollama": SimulatedHost(lambda hosting: create_ollama(Trouble(), CreatedModels(hosting=hosting)), _address),
    "huggingface_endpoints": SimulatedHost(
        create_huggingface_endpoints, lambda _: {"api_key": GOOD, "namespace": OWNER}, "huggingface"
    ),
    "together": SimulatedHost(create_together, _api_key),
    "fireworks": SimulatedHost(create_fireworks, _api_key),
    "predibase": SimulatedHost(create_predibase, _api_key),
    "modal": SimulatedHost(create_modal, lambda _: {"token_id": TOKEN_ID, "token_secret": GOOD}),
    "replicate": SimulatedHost(create_replicate, lambda _: {"api_key": GOOD, "model": f"{MODEL}:{VERSION}"}),
}
