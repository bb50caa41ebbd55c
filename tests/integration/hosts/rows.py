"""
The platforms that the contract of hosts is tested with, each with its simulator and what is peculiar to it.

Add yours to ``ROWS``; every test of ``test_host_contract.py`` then holds for it. What a platform cannot do is said in
its row, and nowhere else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from infra.hosts.base import Host
from infra.hosts.fireworks import Fireworks
from infra.hosts.huggingface import HuggingFace
from infra.hosts.predibase import Predibase
from infra.hosts.replicate import Replicate
from infra.hosts.together import Together
from infra.providers.base import Account
from infra.simulators.accounts import GOOD
from infra.simulators.exchange import App
from infra.simulators.faults import FaultKind
from infra.simulators.fireworks import create_fireworks
from infra.simulators.hosting import Hosting
from infra.simulators.huggingface_endpoints import create_huggingface_endpoints
from infra.simulators.predibase import create_predibase
from infra.simulators.replicate import MODEL, VERSION, create_replicate
from infra.simulators.together import create_together


@dataclass(frozen=True)
class Row:
    """
    One platform under test.

    ``host`` makes the host with a patience and a time-out for creating, in seconds.
    """

    name: str
    host: Callable[[Account, float, float], Host]
    simulator: Callable[[Hosting], App]
    credentials: Mapping[str, str] = field(default_factory=dict[str, str])  # besides the key
    impossible: frozenset[FaultKind] = frozenset()  # troubles that this platform cannot have
    tells_rate: bool = True
    gives_logprobs: bool = True
    asks_base: bool = True  # whether the base model can be asked, beside the adapter
    has_door: bool = True
    sends_key: bool = False  # whether it is handed the key for its machines' use

    def account(self, address: str, key: str = GOOD) -> Account:
        """Return the account that the good key, or another, opens."""
        return Account(address, {**self.credentials, "api_key": key})


def _together(account: Account, patience: float, create_seconds: float) -> Host:
    return Together(account, patience, create_seconds, pace_seconds=0.02)


def _fireworks(account: Account, patience: float, create_seconds: float) -> Host:
    return Fireworks(account, patience, create_seconds, pace_seconds=0.02)


def _replicate(account: Account, patience: float, create_seconds: float) -> Host:
    return Replicate(account, patience, create_seconds, pace_seconds=0.02)


ROWS = (
    Row("huggingface", HuggingFace, create_huggingface_endpoints, sends_key=True),
    # The adapter is merged into its base, which cannot be asked beside it.
    Row("together", _together, create_together, asks_base=False),
    Row("fireworks", _fireworks, create_fireworks, tells_rate=False),
    Row("predibase", Predibase, create_predibase, tells_rate=False),
    Row(
        "replicate",
        _replicate,
        create_replicate,
        credentials={"model": f"{MODEL}:{VERSION}"},
        # A deployment shows no state there: a request waits until a machine has started.
        impossible=frozenset((FaultKind.SLOW_BOOT, FaultKind.ENDLESS_BOOT, FaultKind.FAILS_LOADING)),
        tells_rate=False,
        gives_logprobs=False,
        has_door=False,
    ),
)
