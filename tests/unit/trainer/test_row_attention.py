"""Attention by tiles gives what PyTorch's gives row by row, and no row sees another."""

import pytest
import torch

from peft_studio.trainer.products import fast_products
from peft_studio.trainer.row_attention import TILE, attend, tiles_of

LENGTHS = [[1], [1, 1, 1], [9, 4, 17, 2], [TILE], [TILE + 1], [100, 28, 1], [60, 300, 5, 6, 200], [3 * TILE]]
HEADS = [(4, 4), (4, 2), (6, 1)]  # of queries, and of keys and values
WIDTH = 8
Tensors = tuple[torch.Tensor, ...]


def inputs(tokens: int, heads: int, groups: int, value_width: int = WIDTH) -> Tensors:
    """As models lay them out: token by token in memory, head by head in their shape."""
    torch.manual_seed(0)
    shapes = ((heads, WIDTH), (groups, WIDTH), (groups, value_width))
    return tuple(torch.randn(1, tokens, *shape).transpose(1, 2).requires_grad_() for shape in shapes)


def by_pytorch(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    heads = query.shape[1] // key.shape[1]
    rows = zip(*(part.split(lengths, dim=2) for part in (query, key, value)), strict=True)
    attended = [
        torch.nn.functional.scaled_dot_product_attention(
            q, k.repeat_interleave(heads, 1), v.repeat_interleave(heads, 1), is_causal=True, scale=0.3
        )
        for q, k, v in rows
    ]
    return torch.cat(attended, dim=2).transpose(1, 2)


def by_tiles(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    with fast_products():
        return attend(query, key, value, tiles_of(lengths), 0.3)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize(("heads", "groups"), HEADS)
def test_results_and_gradients_are_those_of_pytorch_row_by_row(lengths: list[int], heads: int, groups: int) -> None:
    found: list[Tensors] = []
    for attention in (by_pytorch, by_tiles):
        given = inputs(sum(lengths), heads, groups)
        result = attention(*given, lengths)
        weights = torch.linspace(-1, 1, result.numel()).view(result.shape)
        found.append((result, *torch.autograd.grad((result * weights).sum(), given)))
    for ours, theirs in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_values_may_be_of_another_width_than_keys() -> None:
    given = inputs(9, 4, 2, value_width=3)
    torch.testing.assert_close(by_tiles(*given, [4, 5]), by_pytorch(*given, [4, 5]))


@pytest.mark.parametrize("lengths", [[9, 7], [200, 7], [7, 200]])
def test_a_row_is_the_same_to_the_bit_whatever_stands_in_another(lengths: list[int]) -> None:
    given = inputs(sum(lengths), 4, 2)
    result = by_tiles(*given, lengths)
    stirred = [torch.cat([part[:, :, : lengths[0]] + 1, part[:, :, lengths[0] :]], dim=2) for part in given]
    assert torch.equal(by_tiles(*stirred, lengths)[:, lengths[0] :], result[:, lengths[0] :])
    assert not torch.equal(by_tiles(*stirred, lengths)[:, : lengths[0]], result[:, : lengths[0]])


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_tiles_are_all_tokens_once_in_order_and_none_is_too_large(lengths: list[int]) -> None:
    tiles = tiles_of(lengths)
    assert [tile.start for tile in tiles] == [0, *(tile.stop for tile in tiles[:-1])]
    assert tiles[-1].stop == sum(lengths)
    assert all(tile.stop - tile.start <= TILE for tile in tiles)


def test_short_rows_share_a_tile_and_long_ones_are_divided_evenly() -> None:
    tiles = tiles_of([60, 60, 60, 300])
    assert [(tile.first, tile.start, tile.stop) for tile in tiles] == [
        (0, 0, 120),
        (120, 120, 180),
        (180, 180, 280),
        (180, 280, 380),
        (180, 380, 480),
    ]
