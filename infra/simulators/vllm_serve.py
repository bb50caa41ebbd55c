"""
The command ``vllm``, simulated: the arguments that it takes, its server, and an engine in a process of its own.

    python -m infra.simulators.vllm_serve serve MODEL --enable-lora --port 8000

As with vLLM, whoever kills the server leaves the engine behind.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.simulators.loopback import served
from infra.simulators.vllm import VllmServer, create_vllm
from peft_studio.vllm_rules import MAX_RANKS

_ENGINE = "import signal; signal.pause()"


def main(arguments: Sequence[str]) -> int:
    """Serve until told to stop."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    asked = parser().parse_args(arguments)
    if Path(asked.model).is_absolute() and not Path(asked.model).is_dir():
        print(f"OSError: Can't load the configuration of '{asked.model}'.", file=sys.stderr)
        return 1
    server = VllmServer(
        base=asked.served_model_name or asked.model,
        key=os.environ.get("VLLM_API_KEY"),
        runtime_updating=asked.enable_lora and os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING") in ("1", "True"),
        max_lora_rank=asked.max_lora_rank,
        adapters=dict(given.split("=", 1) for given in asked.lora_modules),
    )
    engine = subprocess.Popen([sys.executable, "-SEc", _ENGINE, "VLLM::EngineCore"])
    try:
        with served(create_vllm(server), asked.port):
            signal.pause()
    except KeyboardInterrupt:
        return 0
    finally:
        engine.terminate()
        engine.wait()
    return 0


def parser() -> argparse.ArgumentParser:
    """Return what knows those of vLLM's arguments that the studio gives it; others end the program, with code 2."""
    known = argparse.ArgumentParser("vllm")
    known.add_argument("command", choices=["serve"])
    known.add_argument("model")
    known.add_argument("--host", choices=["127.0.0.1", "0.0.0.0"])
    known.add_argument("--port", type=int, default=8000)
    known.add_argument("--enable-lora", action="store_true")
    known.add_argument("--lora-modules", nargs="+", default=[], metavar="NAME=PATH")
    known.add_argument("--max-lora-rank", type=int, choices=MAX_RANKS, default=16)
    for number in ("--max-loras", "--max-cpu-loras"):
        known.add_argument(number, type=int, default=1)
    known.add_argument("--gpu-memory-utilization", type=float, default=0.9)
    for text in ("--served-model-name", "--revision", "--generation-config", "--max-model-len"):
        known.add_argument(text)
    return known


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
