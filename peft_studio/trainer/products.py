"""
Products of matrices in 32 bits, on AMD processors with AVX-512, of which PyTorch's usual library uses half.

That is MKL, which keeps to AVX2 on them. oneDNN, which PyTorch has too, uses all of their width.
"""

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from itertools import takewhile
from pathlib import Path

import torch

# With it PyTorch hands products in 32 bits to oneDNN, which may round their factors to bfloat16. It does so on
# processors with matrix tiles (AMX) alone, of which AMD has none; that it does not is tried out all the same.
_MAY_ROUND = "medium"
_PROCESSORS = Path("/proc/cpuinfo")
NARROW = 256  # models of less width gain less than oneDNN takes to make kernels for the shapes of each batch


@contextmanager
def fast_products(wanted: bool = True, *, width: int = NARROW, processor: str | None = None) -> Generator[None]:
    """
    Have this process multiply by oneDNN meanwhile, where that is wished for, faster, and in 32 bits as before.

    ``width`` is the model's; ``processor`` Linux's description of one, by itself this machine's.
    """
    # On a GPU the setting would mean what it says.
    may = wanted and width >= NARROW and not torch.cuda.is_available()
    if may and is_wide_amd(_processor() if processor is None else processor) and _is_precise():
        with _by_onednn():
            yield
    else:
        yield


def are_fast() -> bool:
    """Whether products are oneDNN's at the moment."""
    return torch.get_float32_matmul_precision() == _MAY_ROUND


def is_wide_amd(processor: str) -> bool:
    """
    Tell from Linux's description of a processor whether it is one of AMD's with AVX-512.

    It is not timed instead: a job that is taken up again has to go on with the same numbers.
    """
    return "AuthenticAMD" in processor and " avx512f " in processor


def _processor() -> str:
    """Linux's description of the first processor; nothing elsewhere."""
    try:
        with _PROCESSORS.open() as lines:
            return "".join(takewhile(str.strip, lines))
    except OSError:
        return ""


@contextmanager
def _by_onednn() -> Generator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(_MAY_ROUND)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def _is_precise() -> bool:
    """Multiply whole numbers of 14 bits, more than any shorter format holds: their sums are exact in 32 bits."""
    numbers = torch.arange(64 * 256).reshape(64, 256).float()
    signs = torch.arange(256 * 64).remainder(3).sub(1).reshape(256, 64).float()
    with _by_onednn():
        plain, transposed = numbers @ signs, signs.t() @ numbers.t()
        several = torch.stack([numbers, -numbers]) @ signs
    exact = numbers.double() @ signs.double()
    pairs = ((plain, exact), (transposed, exact.t()), (several, torch.stack([exact, -exact])))
    return all(torch.equal(found.double(), right) for found, right in pairs)
