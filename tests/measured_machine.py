"""A machine as the studio has measured it, with the packages that are installed here."""

import socket
from pathlib import Path
from typing import Any

from peft_studio.config import Quantization
from peft_studio.machine import Capabilities, Gpu
from peft_studio.packages import installed
from peft_studio.trainer import TRAINER_VERSION


def machine(**changes: Any) -> Capabilities:
    """A machine without a GPU, which rounds no weights."""
    given: dict[str, Any] = {
        "host": socket.gethostname(),
        "torch": installed("torch") or "",
        "bitsandbytes": installed("bitsandbytes"),
        "torchao": installed("torchao"),
        "trainer": TRAINER_VERSION,
        "cpu_cores": 16,
        "ram_gb": 64,
        "matmul_gflops": 100,
        "bf16_gflops": None,
        "quantizations": {Quantization.NONE: None},
    }
    return Capabilities(**given | changes)


def measured(data_dir: Path, *gpus: Gpu) -> None:
    """Leave the measurement of a machine with these GPUs where a studio finds it."""
    data_dir.mkdir(parents=True, exist_ok=True)
    (data_dir / "machine.json").write_text(machine(gpus=list(gpus)).model_dump_json())
