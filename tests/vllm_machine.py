"""A machine with GPUs and vLLM, as far as the studio looks: what was measured of it, and the simulated command."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from infra.settings import Settings
from peft_studio.machine import Gpu
from tests import measured_machine

GPUS = [Gpu(name="NVIDIA L4", vram_gb=24)]


def measured(settings: Settings, gpus: Sequence[Gpu] = GPUS) -> Settings:
    """Settings of a studio whose machine was found to have these GPUs."""
    measured_machine.measured(settings.data_dir, *gpus)
    return settings


def install_vllm(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Put the simulated command first on the PATH, and return where it is."""
    program = folder / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m infra.simulators.vllm_serve "$@"\n')
    program.chmod(0o755)
    patch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return program
