"""A machine with GPUs and vLLM, as far as the studio looks: what was measured of it, and the simulated command."""

import os
import socket
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from infra.settings import Settings
from peft_studio.config import Quantization
from peft_studio.machine import Capabilities, Gpu

GPUS = [Gpu(name="NVIDIA L4", vram_gb=24)]


def measured(settings: Settings, gpus: list[Gpu] = GPUS) -> Settings:
    """Settings of a studio whose machine was found to have these GPUs."""
    machine = Capabilities(
        host=socket.gethostname(),
        torch=version("torch"),
        bitsandbytes=version("bitsandbytes"),
        torchao=version("torchao"),
        cpu_cores=8,
        ram_gb=32,
        gpus=gpus,
        matmul_gflops=100,
        bf16_gflops=100,
        quantizations=dict.fromkeys(Quantization),
    )
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    (settings.data_dir / "machine.json").write_text(machine.model_dump_json())
    return settings


def install_vllm(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Put the simulated command first on the PATH, and return where it is."""
    program = folder / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m infra.simulators.vllm_serve "$@"\n')
    program.chmod(0o755)
    patch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return program
