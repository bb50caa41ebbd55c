"""
The platforms that the contract of hosts is tested with, each with its simulator and what is peculiar to it.

Add yours to ``ROWS``; every test of ``test_host_contract.py`` then holds for it. What a platform cannot do is said in
its row, and nowhere else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from infra.hosts.base import Host
from infra.hosts.fireworks import Fireworks
from infra.hosts.huggingface import HuggingFace
from infra.hosts.lorax import Lorax
from infra.hosts.modal import Modal
from infra.hosts.modal_apps import ModalApps
from infra.hosts.ollama import Ollama
from infra.hosts.predibase import Predibase
from infra.hosts.replicate import Replicate
from infra.hosts.together import Together
from infra.hosts.vllm import Vllm
from infra.providers.base import Account
from infra.simulators.accounts import GOOD
from infra.simulators.exchange import App
from infra.simulators.faults import FaultKind
from infra.simulators.fireworks import create_fireworks
from infra.simulators.hosting import Hosting
from infra.simulators.huggingface_endpoints import create_huggingface_endpoints
from infra.simulators.lorax import LoraxServer, create_lorax
from infra.simulators.modal import TOKEN_ID, create_modal
from infra.simulators.ollama_models import CreatedModels
from infra.simulators.predibase import create_predibase
from infra.simulators.replicate import MODEL, VERSION, create_replicate
from infra.simulators.sources import OLLAMA_MODEL, Trouble, create_ollama
from infra.simulators.together import create_together
from infra.simulators.vllm import VllmServer, create_vllm


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
    tells_chats: bool = True  # whether there are log-probabilities of answers to messages, too
    asks_base: bool = True  # whether the base model can be asked, beside the adapter
    has_door: bool = True
    sends_key: bool = False  # whether it is handed the key for its machines' use
    has_key: bool = True
    key_field: str = "api_key"
    asks_with_own_key: bool = (
        False  # whether a deployment lets in who has its own key, whatever becomes of the account's
    )
    counts: bool = False  # whether it tells how busy a deployment is, at the second look at the latest
    tells_latency: bool = True  # of those
    is_a_folder: bool = False  # whether it is taken off without a word to its platform
    others: frozenset[str] = frozenset()  # what lies there that is none of the studio's

    def account(self, address: str, key: str = GOOD, folder: Path | None = None) -> Account:
        """Return the account that the good key, or another, opens; ``folder`` is where files are laid out for it."""
        return Account(address, {**self.credentials, self.key_field: key}, folder)


def _together(account: Account, patience: float, create_seconds: float) -> Host:
    return Together(account, patience, create_seconds, pace_seconds=0.02)


def _fireworks(account: Account, patience: float, create_seconds: float) -> Host:
    return Fireworks(account, patience, create_seconds, pace_seconds=0.02)


def _replicate(account: Account, patience: float, create_seconds: float) -> Host:
    return Replicate(account, patience, create_seconds, pace_seconds=0.02)


def _modal(account: Account, patience: float, create_seconds: float) -> Host:
    return Modal(account, ModalApps(account, patience, 2 * create_seconds, create_seconds))  # a dozen calls


def _vllm(account: Account, patience: float, create_seconds: float) -> Host:
    return Vllm(account, create_seconds)


def _lorax(account: Account, patience: float, create_seconds: float) -> Host:
    return Lorax(account, create_seconds)


def _ollama(account: Account, patience: float, create_seconds: float) -> Host:
    return Ollama(account)


# A server of one's own bills nothing, has room until it has none, and has loaded what it has answered.
_NOT_ON_OWN_SERVERS = frozenset(
    (
        *(FaultKind.NO_CAPACITY, FaultKind.OUT_OF_CREDIT, FaultKind.RATE_LIMIT, FaultKind.LIST_LAG),
        *(FaultKind.SLOW_BOOT, FaultKind.ENDLESS_BOOT, FaultKind.FAILS_LOADING),
    )
)


ROWS = (
    Row(
        "vllm",
        _vllm,
        lambda hosting: create_vllm(VllmServer(key=hosting.key, hosting=hosting)),
        impossible=_NOT_ON_OWN_SERVERS,
        tells_rate=False,
        counts=True,
    ),
    Row(
        "lorax",
        _lorax,
        lambda hosting: create_lorax(LoraxServer(hosting=hosting)),
        impossible=_NOT_ON_OWN_SERVERS | {FaultKind.NAME_TAKEN},
        tells_rate=False,
        tells_chats=False,
        counts=True,
        is_a_folder=True,
    ),
    Row(
        "ollama",
        _ollama,
        lambda hosting: create_ollama(Trouble(), CreatedModels(hosting=hosting)),
        # It is waited for as long as it works, and a model of a name that is taken takes the other's place.
        impossible=_NOT_ON_OWN_SERVERS | {FaultKind.TIMEOUT_AFTER_CREATE, FaultKind.NAME_TAKEN, FaultKind.REVOKED_KEY},
        tells_rate=False,
        asks_base=False,
        has_key=False,
        others=frozenset([str(OLLAMA_MODEL["name"])]),
    ),
    Row("huggingface", HuggingFace, create_huggingface_endpoints, sends_key=True),
    # The adapter is merged into its base, which cannot be asked beside it.
    Row("together", _together, create_together, asks_base=False, counts=True, tells_latency=False),
    Row("fireworks", _fireworks, create_fireworks, tells_rate=False, counts=True),
    # LoRAX in OpenAI's form, which has no log-probabilities.
    Row("predibase", Predibase, create_predibase, tells_rate=False, gives_logprobs=False),
    Row(
        "modal",
        _modal,
        create_modal,
        credentials={"token_id": TOKEN_ID},
        # An app shows no state there: who asks waits until a container has started, and for room. One that is deployed
        # under a name that is taken is that app's next version.
        impossible=frozenset(
            (
                *(FaultKind.SLOW_BOOT, FaultKind.ENDLESS_BOOT, FaultKind.FAILS_LOADING),
                *(FaultKind.NO_CAPACITY, FaultKind.NAME_TAKEN),
            )
        ),
        tells_rate=False,
        key_field="token_secret",
        asks_with_own_key=True,
    ),
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
