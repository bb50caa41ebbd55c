"""vLLM as the endpoint of a base model on this machine."""

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.serving.endpoint_client import TOKEN_VARIABLE
from infra.serving.endpoint_process import EndpointProcess


class VllmEndpoint(EndpointProcess):
    """vLLM's server, with its runtime routes for adapters; it samples as it is asked to, not as a model suggests."""

    name = "vllm"

    def command(self) -> Sequence[str]:
        """Return vLLM's command; the operator's arguments come last, and so have the last word."""
        source, revision = self._base
        is_folder = Path(source).is_dir()  # its revision is the studio's own hash of its files
        return (
            *(sys.executable, "-m", "infra.serving.leash"),
            *(vllm_program() or self.name, "serve", source, "--served-model-name", source),
            *(("--revision", revision) if revision and not is_folder else ()),
            *("--host", "127.0.0.1", "--port", str(self._port)),
            *("--enable-lora", "--max-lora-rank", str(self._settings.vllm_max_lora_rank)),
            *("--generation-config", "vllm"),
            *shlex.split(self._settings.vllm_arguments),
        )

    def environment(self) -> Mapping[str, str]:
        """Return what opens the routes for adapters, and lets in whoever has the endpoints' token."""
        token = os.environ.get(TOKEN_VARIABLE)
        return {
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
            "VLLM_NO_USAGE_STATS": "1",
            **({"VLLM_API_KEY": token} if token else {}),
        }


def vllm_program() -> str | None:
    """Return where vLLM's command is, beside this Python or on the PATH; None where it is not installed."""
    places = (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))
    return shutil.which("vllm", path=os.pathsep.join(places))
