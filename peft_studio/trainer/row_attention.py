"""
Attention within the rows of a packed batch, by few large products: where those are fast, it is faster than PyTorch's.

A batch falls into tiles of neighbouring tokens, which see each other and what lies before them in their row: pieces of
long rows, or some short rows. Of a tile at a time there are weights, in memory that is taken once for all of them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

TILE = 128  # tokens; of smaller tiles there are more, and of larger ones more is computed that nobody sees
_SOFTMAX_BACKWARD = torch.ops.aten._softmax_backward_data


@dataclass(frozen=True)
class Tile:
    """Tokens ``start`` to ``stop`` of a batch, which see none before ``first``, and each other as ``mask`` has it."""

    first: int
    start: int
    stop: int
    mask: torch.Tensor  # (tokens, tokens), minus infinity where the one does not see the other, else 0

    @property
    def keys(self) -> slice:
        """All tokens that it sees."""
        return slice(self.first, self.stop)

    @property
    def queries(self) -> slice:
        """Its own tokens."""
        return slice(self.start, self.stop)

    @property
    def size(self) -> int:
        """How many pairs of a token and one that it may see there are."""
        return (self.stop - self.start) * (self.stop - self.first)


def tiles_of(lengths: Sequence[int]) -> list[Tile]:
    """Divide rows of these lengths, one behind the other, in each of which a token sees itself and those before it."""
    tiles: list[Tile] = []
    first = 0
    for rows in _grouped(lengths):
        tokens = sum(rows)
        step = math.ceil(tokens / math.ceil(tokens / TILE))
        for start in range(0, tokens, step):
            stop = min(start + step, tokens)
            mask = _mask(rows if len(rows) > 1 else [stop - start])
            tiles.append(Tile(first, first + start, first + stop, mask))
        first += tokens
    return tiles


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, tiles: Sequence[Tile], scale: float
) -> torch.Tensor:
    """
    Attend within the rows of one packed batch on a processor.

    Queries (1, heads, tokens, width), keys and values (1, groups of heads, tokens, width); the result is (1, tokens,
    heads, width).
    """
    result: torch.Tensor = _Attention.apply(query, key, value, tiles, scale)  # pyright: ignore[reportAssignmentType]
    return result


class _Attention(torch.autograd.Function):
    """``softmax(scale * query @ keyᵀ + mask) @ value``, whose weights are computed again in the backward pass."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, tiles: Sequence[Tile], scale: float
    ) -> torch.Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.tiles, ctx.scale = tuple(tiles), scale
        heads, tokens = query.shape[1:3]
        result = query.new_empty(tokens, heads, value.shape[-1])
        scaled, [spare] = query[0] * scale, _spare(query, tiles, 1)
        keys, values, into = key[0], value[0], result.transpose(0, 1)
        for tile in tiles:
            weights = _weights(_take(scaled, tile, len(keys)), keys[:, tile.keys], tile, spare)
            _put(into, tile, weights @ values[:, tile.keys])
        return result[None]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        of_query, of_key, of_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        scaled, gradient = query[0] * ctx.scale, gradients[0][0].transpose(0, 1)
        spare, other = _spare(query, ctx.tiles, 2)
        for tile in ctx.tiles:
            keys, values, into_keys, into_values = (x[0, :, tile.keys] for x in (key, value, of_key, of_value))
            asked, given = _take(scaled, tile, len(keys)), _take(gradient, tile, len(keys))
            weights = _weights(asked, keys, tile, spare)
            into_values += weights.transpose(1, 2) @ given
            of_scores = other[: weights.numel()].view_as(weights)
            torch.bmm(given, values.transpose(1, 2), out=of_scores)
            _SOFTMAX_BACKWARD.out(of_scores, weights, -1, weights.dtype, grad_input=of_scores)
            into_keys += of_scores.transpose(1, 2) @ asked
            _put(of_query[0], tile, of_scores @ keys)
        return of_query.mul_(ctx.scale), of_key, of_value, None, None


def _weights(asked: torch.Tensor, keys: torch.Tensor, tile: Tile, place: torch.Tensor) -> torch.Tensor:
    """Return how much of what it sees each of a tile's tokens takes (groups, heads in one x tokens, keys)."""
    groups, rows, seen = asked.shape[0], asked.shape[1], keys.shape[1]
    scores = place[: groups * rows * seen].view(groups, rows, seen)
    torch.bmm(asked, keys.transpose(1, 2), out=scores)
    scores.view(-1, len(tile.mask), seen)[..., tile.start - tile.first :] += tile.mask
    return torch.softmax(scores, -1, out=scores)


def _take(of: torch.Tensor, tile: Tile, groups: int) -> torch.Tensor:
    """Copy what belongs to a tile's tokens: (heads, tokens, width) to (groups, heads in one x tokens, width)."""
    return of[:, tile.queries].clone(memory_format=torch.contiguous_format).view(groups, -1, of.shape[-1])


def _put(into: torch.Tensor, tile: Tile, part: torch.Tensor) -> None:
    """Undo ``_take``."""
    into[:, tile.queries] = part.view(len(into), -1, into.shape[-1])


def _spare(like: torch.Tensor, tiles: Sequence[Tile], count: int) -> torch.Tensor:
    return like.new_empty(count, like.shape[1] * max(tile.size for tile in tiles))


def _grouped(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield rows of these lengths in order, short ones together, for as long as a tile has room for them."""
    group: list[int] = []
    for length in lengths:
        if group and sum(group) + length > TILE:
            yield group
            group = []
        group.append(length)
    yield group


def _mask(lengths: Sequence[int]) -> torch.Tensor:
    rows = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    sees = (rows[:, None] == rows).tril()
    return torch.zeros(sees.shape).masked_fill_(~sees, -math.inf)
