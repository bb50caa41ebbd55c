"""Products are oneDNN's on some processors, and in 32 bits on all."""

from pathlib import Path

import pytest
import torch

from peft_studio.trainer.products import NARROW, are_fast, fast_products, is_wide_amd

AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f avx512dq\n"
PROCESSORS = {
    AMD: True,
    "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2\n": False,
    "vendor_id\t: GenuineIntel\nflags\t\t: fpu avx2 avx512f avx512dq\n": False,
    "": False,
}
SHAPES = [(1, 64, 512), (7, 512, 8), (300, 512, 1408), (768, 1408, 512)]  # rows, width, columns


@pytest.mark.parametrize("processor", PROCESSORS)
def test_amd_processors_with_avx512_are_those_on_which_another_library_is_faster(processor: str) -> None:
    assert is_wide_amd(processor) is PROCESSORS[processor]


@pytest.mark.parametrize(("rows", "width", "columns"), SHAPES)
@pytest.mark.parametrize("transposed", [False, True])
def test_fast_products_round_no_more_than_32_bits_do(rows: int, width: int, columns: int, transposed: bool) -> None:
    torch.manual_seed(0)
    left = torch.randn(rows, width)
    right = torch.randn(columns, width).t() if transposed else torch.randn(width, columns)
    with fast_products(processor=AMD):
        product = left @ right
    exact = left.double() @ right.double()
    # Factors in bfloat16 would put it a hundred times as far off.
    assert (product - exact).abs().max() < 3e-5 * width**0.5


def test_products_are_onednns_on_such_a_processor_unless_it_would_round() -> None:
    described = Path("/proc/cpuinfo")
    rounds = described.exists() and "amx_bf16" in described.read_text()
    with fast_products(processor=AMD):
        assert are_fast() is not rounds


def test_products_are_as_before_afterwards_whatever_has_happened() -> None:
    assert not are_fast()
    with pytest.raises(RuntimeError, match="meanwhile"), fast_products(processor=AMD):
        raise RuntimeError("meanwhile")
    assert not are_fast()


def test_products_stay_as_they_are_where_a_job_wants_no_fast_kernels() -> None:
    with fast_products(wanted=False, processor=AMD):
        assert not are_fast()


def test_products_stay_as_they_are_in_narrow_models() -> None:
    with fast_products(width=NARROW - 1, processor=AMD):
        assert not are_fast()
