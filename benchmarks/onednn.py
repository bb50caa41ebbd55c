"""
What oneDNN's products in 32 bits are worth on this processor, beside PyTorch's usual ones: alone, and in attention.

Both in turns, forwards and backwards. Where the trainer makes no use of oneDNN, products are compared with themselves,
and attention by tiles, which it has no use for there either, is made of the usual ones.
"""

import os
import time
from collections.abc import Callable
from statistics import median

from benchmarks.report import Figure
from benchmarks.workload import MODELS

MODEL = os.environ.get("PEFT_STUDIO_BENCH_MODEL", "llama-30m")
TOKENS, HEAD = 768, 64  # of a batch, and a head's width
ROW_LENGTHS = (32, 64, 128, 200, 400, 800)
TURNS, REPEATS = 9, 5


def measure() -> list[Figure]:
    """Compare medians of seconds."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    width, inner = MODELS[MODEL]["hidden_size"], MODELS[MODEL]["intermediate_size"]
    products = [
        Figure(f"products ({TOKENS} x {rows}) by ({rows} x {columns}), over the usual ones", _product(*shape), "times")
        for shape in ((TOKENS, width, width), (TOKENS, width, inner), (TOKENS, inner, width))
        for _, rows, columns in [shape]
    ]
    products.append(
        Figure("mean rounding error of the last, over the usual ones'", _rounding(TOKENS, inner, width), "")
    )
    return products + [
        Figure(f"attention in rows of {length} tokens, over PyTorch's row by row", _attention(width, length), "times")
        for length in ROW_LENGTHS
    ]


def _product(tokens: int, rows: int, columns: int) -> float:
    import torch

    hidden, weight, slope = torch.randn(tokens, rows), torch.randn(columns, rows), torch.randn(tokens, columns)

    def usual() -> None:
        torch.mm(hidden, weight.t())
        torch.mm(slope, weight)

    return _ratio(usual, usual)


def _rounding(tokens: int, rows: int, columns: int) -> float:
    import torch

    from peft_studio.trainer.products import fast_products

    hidden, weight = torch.randn(tokens, rows), torch.randn(rows, columns)
    exact = hidden.double() @ weight.double()

    def error(is_fast: bool) -> float:
        with fast_products(is_fast):
            return (torch.mm(hidden, weight) - exact).square().mean().sqrt().item()

    return error(True) / error(False)


def _attention(width: int, length: int) -> float:
    import torch

    from peft_studio.trainer.row_attention import attend, tiles_of

    attention = torch.nn.functional.scaled_dot_product_attention
    heads, lengths = width // HEAD, [length] * max(1, TOKENS // length)
    tiles = tiles_of(lengths)
    query, key, value = (
        torch.randn(1, sum(lengths), count, HEAD).transpose(1, 2).requires_grad_()
        for count in (heads, heads // 4, heads // 4)
    )

    def backwards(result: torch.Tensor) -> None:
        torch.autograd.grad(result, (query, key, value), torch.ones_like(result))

    def usual() -> None:
        rows = zip(*(part.split(lengths, dim=2) for part in (query, key, value)), strict=True)
        attended = [attention(*row, is_causal=True, enable_gqa=True).transpose(1, 2) for row in rows]
        backwards(torch.cat(attended, dim=1))

    def fast() -> None:
        backwards(attend(query, key, value, tiles, HEAD**-0.5))

    return _ratio(usual, fast)


def _ratio(usual: Callable[[], None], fast: Callable[[], None]) -> float:
    """Time both in turns, the second with fast products; return how many times as fast it is."""
    from peft_studio.trainer.products import fast_products

    seconds: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(TURNS + 1):
        for is_fast, found in seconds.items():
            compute = fast if is_fast else usual
            with fast_products(is_fast):
                began = time.perf_counter()
                for _ in range(REPEATS):
                    compute()
                if turn:  # the first one makes kernels
                    found.append(time.perf_counter() - began)
    return median(seconds[False]) / median(seconds[True])
