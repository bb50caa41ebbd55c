"""
The program that measures this machine: python -m peft_studio.trainer.capabilities.

Prints ``Capabilities`` as one line of JSON. Quantizations are tried for real, forwards and backwards.
"""

import os
import socket
import time
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

from peft_studio.config import Quantization
from peft_studio.machine import Capabilities, Gpu
from peft_studio.packages import installed
from peft_studio.trainer import TRAINER_VERSION
from peft_studio.trainer.products import fast_products
from peft_studio.trainer.quantization import small_layer

CONTROL_GROUP = Path("/sys/fs/cgroup/memory.max")
SMALLEST, LARGEST = 256, 4096  # sides of the matrices
SECONDS = 0.4


def measure() -> Capabilities:
    """Measure this machine; takes some seconds, most of them for imports."""
    on = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Capabilities(
        host=socket.gethostname(),
        torch=version("torch"),
        bitsandbytes=installed("bitsandbytes"),
        torchao=installed("torchao"),
        trainer=TRAINER_VERSION,
        cpu_cores=len(os.sched_getaffinity(0)),
        ram_gb=round(_memory() / 2**30, 1),
        gpus=[_gpu(index) for index in range(torch.cuda.device_count())],
        matmul_gflops=_float32(on),
        bf16_gflops=_bf16(on),
        quantizations={kind: _why_not(kind, on) for kind in Quantization},
    )


def gflops(dtype: torch.dtype, on: torch.device) -> float:
    """
    The best rate of square matrix products, in billions of operations a second.

    The best of many, and with one thread too: on a busy machine threads mostly wait for each other.
    """
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = _best(dtype, on, SECONDS / 2)
    finally:
        torch.set_num_threads(threads)
    return max(alone, _best(dtype, on, SECONDS))


def _best(dtype: torch.dtype, on: torch.device, seconds: float) -> float:
    side, best, end = SMALLEST, 0.0, time.perf_counter() + seconds
    while True:
        matrix = torch.ones(side, side, dtype=dtype, device=on)
        took = min(_product_seconds(matrix) for _ in range(4))
        best = max(best, 2 * side**3 / took / 1e9)
        now = time.perf_counter()
        if now >= end:
            return best
        if side < LARGEST and now + 40 * took < end:
            side *= 2


def _product_seconds(matrix: torch.Tensor) -> float:
    start = time.perf_counter()
    # Reading one number waits for a GPU to be done.
    (matrix @ matrix)[0, 0].item()
    return time.perf_counter() - start


@fast_products()
def _float32(on: torch.device) -> float:
    return round(gflops(torch.float32, on), 2)


def _bf16(on: torch.device) -> float | None:
    try:
        return round(gflops(torch.bfloat16, on), 2)
    except RuntimeError:
        return None


def _why_not(quantization: Quantization, on: torch.device) -> str | None:
    if quantization is Quantization.NONE:
        return None
    try:
        _exercise(small_layer(quantization, _dtype(on), on), on)
    except ModuleNotFoundError as error:
        return f"the package {str(error.name).partition('.')[0]} is not installed"
    except Exception as error:  # whatever a foreign library has against this machine is the answer
        return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0][:200]}"
    return None


def _exercise(layer: torch.nn.Linear, on: torch.device) -> None:
    """Run a frozen layer as training does: the gradient goes through it to what lies before."""
    rows = torch.randn(8, layer.in_features, dtype=_dtype(on), device=on, requires_grad=True)
    layer(rows).float().square().sum().backward()
    if rows.grad is None or not bool(torch.isfinite(rows.grad).all()) or not bool(rows.grad.any()):
        raise ArithmeticError("no usable gradient comes back through the layer")


def _dtype(on: torch.device) -> torch.dtype:
    return torch.bfloat16 if on.type == "cuda" else torch.float32


def _gpu(index: int) -> Gpu:
    properties = torch.cuda.get_device_properties(index)
    return Gpu(name=properties.name, vram_gb=round(properties.total_memory / 2**30, 1))


def _memory() -> int:
    total = psutil.virtual_memory().total
    try:
        return min(total, int(CONTROL_GROUP.read_text()))
    except (OSError, ValueError):  # no control group, or one without a limit ("max")
        return total


if __name__ == "__main__":
    print(measure().model_dump_json())
