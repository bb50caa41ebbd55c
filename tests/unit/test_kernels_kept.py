"""Kernels of shapes that were met once do not pile up in a trainer's memory."""

import subprocess
import sys

import pytest
import torch

GROWTH = """
import peft_studio.trainer
import torch
from psutil import Process

weight = torch.randn(64, 64, dtype=torch.bfloat16)

def multiply(first, last):
    for tokens in range(first, last):
        torch.nn.functional.linear(torch.randn(tokens, 64, dtype=torch.bfloat16), weight)
    return Process().memory_info().rss / 2**20

print(-multiply(1, 100) + multiply(100, 500))
"""


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor multiplies no bfloat16 by oneDNN"
)
def test_products_of_ever_new_shapes_take_no_ever_more_memory() -> None:
    done = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 100  # MB; kept, they take some 260
