"""Which program serves an adapter on this machine: vLLM, or the studio's own endpoint."""

import logging
from functools import lru_cache
from pathlib import Path

from infra.planning import capabilities
from infra.serving.endpoint_process import Base
from infra.serving.records import Deployment
from infra.serving.vllm_process import vllm_program
from infra.settings import LocalEngine, Settings
from peft_studio.errors import StudioError
from peft_studio.safetensors_files import UnsafeFile
from peft_studio.vllm_rules import broken_rules

log = logging.getLogger(__name__)


class Choice:
    """
    Chooses by the setting ``local_engine``; by itself vLLM, where it is installed, has a GPU and takes the adapter.

    What vLLM turns out not to serve is remembered for as long as this lives.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self._is_usable = settings.local_engine is LocalEngine.AUTO and is_vllm_usable(settings)
        self._unserved: set[Base | str] = set()

    def engine(self, deployment: Deployment) -> LocalEngine:
        """Return what is to serve a deployment."""
        if self._settings.local_engine is not LocalEngine.AUTO:
            return self._settings.local_engine
        tried = not self._unserved.isdisjoint((base_of(deployment), deployment.adapter))
        if not self._is_usable or tried or objections(deployment.adapter, self._settings.vllm_max_lora_rank):
            return LocalEngine.OWN
        return LocalEngine.VLLM

    def turns_away(self, engine: LocalEngine, what: Base | str, why: str) -> bool:
        """Have the own endpoint serve a base model or an adapter's folder that vLLM does not; False where none may."""
        if engine is not LocalEngine.VLLM or self._settings.local_engine is not LocalEngine.AUTO:
            return False
        log.warning("vLLM does not serve %s, so the studio's own endpoint will: %s", what, why)
        self._unserved.add(what)
        return True


def base_of(deployment: Deployment) -> Base:
    """Return the base model of a deployment."""
    return Base(deployment.base_model, deployment.revision)


def is_vllm_usable(settings: Settings) -> bool:
    """Whether vLLM is installed on this machine, and has a GPU to use."""
    machine = capabilities.load(settings)
    return vllm_program() is not None and machine is not None and bool(machine.gpus)


@lru_cache(maxsize=1024)
def objections(adapter: str, max_rank: int) -> tuple[str, ...]:
    """Say why vLLM would not serve an adapter (its folder, which never changes), or not as it was trained."""
    try:
        return tuple(broken_rules(Path(adapter), max_rank))
    except (OSError, UnsafeFile, StudioError):
        return ("its files cannot be read",)
