"""
The vendors that the provider contract is tested with, each with its simulator and what is peculiar to it.

Add yours to ``VENDORS``; every test of ``test_provider_contract.py`` then holds for it. What a vendor cannot do is said
in its entry, and nowhere else.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncssh
import httpx

from infra.providers.base import Account, Provider
from infra.providers.huggingface_jobs import HuggingFaceJobs
from infra.providers.kubernetes import Kubernetes
from infra.providers.lambda_cloud import LambdaCloud
from infra.providers.runpod import RunPod
from infra.providers.ssh import Ssh
from infra.providers.vast import Vast
from infra.simulators import kubernetes, ssh
from infra.simulators.accounts import GOOD
from infra.simulators.cloud import Cloud
from infra.simulators.faults import FaultKind, Faults
from infra.simulators.lambda_cloud import create_lambda
from infra.simulators.loopback import served
from infra.simulators.vendors import SIMULATED
from tests.integration.providers.exchanges import Exchange, recorded
from tests.integration.providers.stage import stage


@dataclass(frozen=True)
class Vendor:
    """
    One vendor under test.

    ``provider`` makes the provider with paces fit for tests; the number is how long it waits for a create call.
    ``simulator`` serves a cloud, notes what is sent and answered, and yields the address for the account.
    """

    name: str
    provider: Callable[[Account, float], Provider]
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])  # of its cloud, where tests need others
    simulator: Callable[["Vendor", Cloud, list[Exchange]], AbstractContextManager[str]] = field(
        default=lambda vendor, cloud, exchanges: usual_simulator(vendor, cloud, exchanges)
    )
    credentials: Callable[[str, str], Mapping[str, str]] = lambda address, key: {"api_key": key}
    impossible: frozenset[FaultKind] = frozenset()  # troubles that this vendor cannot have
    tells_rate: bool = True  # of a machine that runs
    tells_bill: bool = True
    tells_end: bool = True  # of a command
    tells_exit_code: bool = False

    def cloud(self, faults: Faults) -> Cloud:
        """Make a cloud with this vendor's habits and machines that boot at once."""
        return SIMULATED[self.name].cloud(faults, **{"boot_seconds": 0.1, **self.settings})

    def account(self, address: str, key: str = GOOD) -> Account:
        """Return the account that the good key, or another, opens."""
        return Account(address, self.credentials(address, key))


@contextmanager
def usual_simulator(vendor: Vendor, cloud: Cloud, exchanges: list[Exchange]) -> Generator[str]:
    """Serve what ``SIMULATED`` has of a vendor's name."""
    with served(recorded(SIMULATED[vendor.name].application(cloud), exchanges)) as address:
        yield f"{address}/{vendor.name}"


@contextmanager
def _on_stage(vendor: Vendor, cloud: Cloud, exchanges: list[Exchange]) -> Generator[str]:
    """Do the same at an address that tests share, which is quicker; for providers that remember nothing of it."""
    app = SIMULATED[vendor.name].application(cloud)
    with stage().shows(vendor.name, recorded(app, exchanges)) as address:
        yield address


def _of_kubernetes(address: str, key: str) -> Mapping[str, str]:
    return {**kubernetes.credentials(address), "token": key}


def _of_ssh(address: str, key: str) -> Mapping[str, str]:
    try:
        given = ssh.credentials(address)
    except httpx.ConnectError:  # nobody is there: so are no machines
        return {"hosts": address.removeprefix("http://"), "user": "u", "private_key": key, "known_hosts": ""}
    other = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    return given if key == GOOD else {**given, "private_key": other}


# A cluster has one price, no account that runs empty, and lists that are up to date; its Jobs run once.
_NOT_OF_CLUSTERS = frozenset(
    (FaultKind.OUT_OF_CREDIT, FaultKind.PRICE_DRIFT, FaultKind.LIST_LAG, FaultKind.RESTARTED, FaultKind.STALE_OFFER)
)
# Neither have one's own machines, which do not boot for a job, besides.
_NOT_OF_HOSTS = (_NOT_OF_CLUSTERS - {FaultKind.STALE_OFFER}) | {FaultKind.SLOW_BOOT, FaultKind.ENDLESS_BOOT}


@contextmanager
def _unhurried_lambda(vendor: Vendor, cloud: Cloud, exchanges: list[Exchange]) -> Generator[str]:
    with stage().shows(vendor.name, recorded(create_lambda(cloud, launch_seconds=0), exchanges)) as address:
        yield address


VENDORS = (
    Vendor("runpod", RunPod, simulator=_on_stage),
    Vendor(
        "lambda",
        lambda account, seconds: LambdaCloud(account, seconds, read_pace_seconds=0, launch_pace_seconds=0),
        simulator=_unhurried_lambda,
        # A virtual machine is there until it is terminated, and Docker is told never to start the container anew.
        impossible=frozenset({FaultKind.RESTARTED}),
        tells_end=False,
        tells_bill=False,
    ),
    Vendor("vast", Vast),
    Vendor("huggingface", HuggingFaceJobs, impossible=frozenset({FaultKind.PRICE_DRIFT}), tells_exit_code=True),
    Vendor(
        "kubernetes",
        Kubernetes,
        credentials=_of_kubernetes,
        impossible=_NOT_OF_CLUSTERS,
        tells_rate=False,
        tells_bill=False,
        tells_exit_code=True,
    ),
    Vendor(
        "ssh",
        Ssh,
        credentials=_of_ssh,
        impossible=_NOT_OF_HOSTS,
        tells_rate=False,
        tells_bill=False,
        tells_exit_code=True,
    ),
)
