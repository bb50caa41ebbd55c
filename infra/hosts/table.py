"""The platforms that adapters are served on, by their names in ``infra/platforms/vendors.py``; this machine is none."""

from collections.abc import Callable, Mapping

from infra.hosts.base import Host
from infra.hosts.fireworks import Fireworks
from infra.hosts.huggingface import HuggingFace
from infra.hosts.lorax import Lorax
from infra.hosts.modal import Modal
from infra.hosts.ollama import Ollama
from infra.hosts.predibase import Predibase
from infra.hosts.replicate import Replicate
from infra.hosts.together import Together
from infra.hosts.vllm import Vllm
from infra.providers.base import Account

HOSTS: Mapping[str, Callable[[Account], Host]] = {
    "vllm": Vllm,
    "lorax": Lorax,
    "ollama": Ollama,
    "huggingface": HuggingFace,
    "together": Together,
    "fireworks": Fireworks,
    "predibase": Predibase,
    "modal": Modal,
    "replicate": Replicate,
}
