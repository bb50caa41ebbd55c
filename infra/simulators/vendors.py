"""The vendors of machines that are simulated: how to make each, and how the real one behaves."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.simulators.cloud import Cloud
from infra.simulators.exchange import App
from infra.simulators.faults import Faults
from infra.simulators.huggingface_jobs import create_huggingface_jobs
from infra.simulators.kubernetes import create_kubernetes
from infra.simulators.lambda_cloud import create_lambda
from infra.simulators.runpod import create_runpod
from infra.simulators.ssh import create_ssh
from infra.simulators.vast import create_vast


@dataclass(frozen=True)
class SimulatedVendor:
    """One vendor; ``habits`` are those of ``Cloud``'s settings in which it differs."""

    application: Callable[[Cloud], App]
    habits: Mapping[str, Any] = field(default_factory=dict[str, Any])

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
    "kubernetes": SimulatedVendor(create_kubernetes),
    "ssh": SimulatedVendor(create_ssh),
    "lambda": SimulatedVendor(create_lambda, {"billing_increment": 60, "bills_while_booting": False}),
}
