"""The vendors of machines that are simulated: how to make each, and how the real one behaves."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.simulators import kubernetes, ssh
from infra.simulators.accounts import GOOD
from infra.simulators.cloud import Cloud
from infra.simulators.exchange import App
from infra.simulators.faults import Faults
from infra.simulators.huggingface_jobs import create_huggingface_jobs
from infra.simulators.lambda_cloud import create_lambda
from infra.simulators.runpod import create_runpod
from infra.simulators.vast import create_vast


def _api_key(address: str) -> Mapping[str, str]:
    return {"api_key": GOOD}


@dataclass(frozen=True)
class SimulatedVendor:
    """
    One vendor.

    ``habits`` are those of ``Cloud``'s settings in which it differs; ``credentials`` are what connecting takes where
    it is served at an address.
    """

    application: Callable[[Cloud], App]
    habits: Mapping[str, Any] = field(default_factory=dict[str, Any])
    credentials: Callable[[str], Mapping[str, str]] = _api_key

    def cloud(self, faults: Faults | None = None, **settings: Any) -> Cloud:
        """Make a cloud that bills and ends its machines as this vendor does, unless settings say otherwise."""
        return Cloud(faults=faults, **{**self.habits, **settings})


# By the platform's name; each answers where that platform's address is /NAME on a loopback port, or its root.
SIMULATED: dict[str, SimulatedVendor] = {
    "runpod": SimulatedVendor(create_runpod, {"restarts_ended": True, "bills_when_ended": False}),
    "vast": SimulatedVendor(create_vast, {"bills_while_booting": False}),
    "huggingface": SimulatedVendor(
        create_huggingface_jobs, {"billing_increment": 60, "bills_while_booting": False, "gone_when_ended": True}
    ),
    "kubernetes": SimulatedVendor(kubernetes.create_kubernetes, credentials=kubernetes.credentials),
    "ssh": SimulatedVendor(ssh.create_ssh, credentials=ssh.credentials),
    "lambda": SimulatedVendor(create_lambda, {"billing_increment": 60, "bills_while_booting": False}),
}
