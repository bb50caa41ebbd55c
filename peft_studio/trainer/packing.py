"""Packing: rows one behind the other instead of side by side, without padding, and none sees another."""

import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from peft_studio.algorithms import Targets
from peft_studio.config import TrainingConfig
from peft_studio.trainer.checkpoint import random_state, set_random_state
from peft_studio.trainer.data import Batch, Row, collate
from peft_studio.trainer.evaluating import evaluating
from peft_studio.trainer.kernels import is_flash
from peft_studio.trainer.last_mlp import asked_for
from peft_studio.trainer.loss import summed_loss, token_log_probs
from peft_studio.trainer.products import are_fast
from peft_studio.trainer.row_attention import Tile, attend, tiles_of

ATTENTION = "peft_studio_packed"
SHORT = 16  # tokens of each row that packing is tried out on
# How much two losses may differ: rows packed and alone, and a row behind one and behind another.
TOLERANCE = {torch.float32: (1e-4, 1e-5)}
COARSE = (2e-2, 1e-3)  # formats that round more
STIRRED = 0.02  # how far what is trained is moved meanwhile

# Of the batch that is being computed: the lengths of its rows, and its tiles where it is attended to by them.
_lengths: list[int] = []
_tiles: list[Tile] = []


def _within_rows(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, _: Any, **settings: Any
) -> tuple[torch.Tensor, None]:
    """Attend within every row by itself: no mask, and work that grows with the squares of the rows' lengths."""
    if _tiles and _is_plain(module, query, key, settings):
        scale = settings.get("scaling") or query.shape[-1] ** -0.5
        return attend(query, key, value, _tiles, scale), None
    parts = (part.split(_lengths, dim=2) for part in (query, key, value))
    attended = [sdpa_attention_forward(module, q, k, v, None, **settings)[0] for q, k, v in zip(*parts, strict=True)]
    return torch.cat(attended, dim=1), None


def _is_plain(module: Any, query: torch.Tensor, key: torch.Tensor, settings: dict[str, Any]) -> bool:
    """Whether a token sees itself and all before it, in 32 bits, and nothing is added to that or left out by chance."""
    causal = settings.get("is_causal")
    return (
        query.dtype is key.dtype is torch.float32
        and query.shape[2] == key.shape[2]
        and (getattr(module, "is_causal", True) if causal is None else causal)
        and not settings.get("dropout")
        and all(settings.get(extra) is None for extra in ("position_bias", "softcap"))
    )


def _no_mask(*_: Any, **__: Any) -> None:
    return None


AttentionInterface.register(ATTENTION, _within_rows)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, _no_mask)  # pyright: ignore[reportArgumentType]


def pack(rows: Sequence[Row], device: torch.device | str = "cpu") -> Batch:
    """Put rows one behind the other; each one's positions begin at 0, and nothing predicts its first token."""
    lengths = tuple(len(row.ids) for row in rows)
    ids = torch.cat([torch.from_numpy(row.ids) for row in rows])
    learn = torch.cat([torch.from_numpy(row.learn) for row in rows])
    positions = torch.cat([torch.arange(length) for length in lengths])
    learn &= positions > 0
    return Batch(ids[None].to(device), learn[None].to(device), lengths, positions[None].to(device))


@contextmanager
def rows_apart(model: Any, batch: Batch) -> Generator[None]:
    """
    Have attention respect the rows of a packed batch, forwards and backwards; others are left as they are.

    Nothing is looked at but what the batch's tokens that carry loss are predicted from.
    """
    if batch.positions is None:
        yield
        return
    config = model.config.get_text_config()
    before = config._attn_implementation
    _lengths[:] = batch.lengths
    _tiles[:] = tiles_of(batch.lengths) if are_fast() and batch.ids.device.type == "cpu" else []
    if before == "sdpa":  # FlashAttention keeps rows apart by their positions
        config._attn_implementation = ATTENTION
    try:
        with asked_for(batch.ids.shape, batch.learn.flatten()[1:].nonzero()[:, 0]):
            yield
    finally:
        config._attn_implementation = before
        _lengths.clear()
        _tiles.clear()


def can_pack(model: Any, rows: Sequence[Row], config: TrainingConfig) -> bool:
    """
    Say whether packing gives the same losses on this model, by trying it out on two rows.

    What mixes tokens otherwise than by attention (convolutions, states that are carried on, adapters that choose by
    the mean of a batch) would leak between rows, and so does not pass. Rows that are longer than an attention window
    are not packed either.
    """
    settings = model.config.get_text_config()
    window = getattr(settings, "sliding_window", None)
    if not config.packing or config.method.targets is Targets.PROMPT:
        return False
    if settings._attn_implementation != "sdpa" and not is_flash(settings._attn_implementation):
        return False
    if window and max(len(row.ids) for row in rows) > window:
        return False
    some = [_all_of(row) for row in (rows[0], rows[-1])]
    if min(len(row.ids) for row in some) < 2:
        return False
    return _gives_the_same(model, some)


def _gives_the_same(model: Any, rows: list[Row]) -> bool:
    before = random_state()
    try:
        first, second = rows
        unlike = Row(np.full_like(first.ids, second.ids[-1]), first.learn)
        with evaluating(model), _stirred(model):
            alone = summed_loss(model, collate(rows, model.device)).item()
            packed, behind = _losses(model, [first, second])
            # Of another first row the second may know nothing, which shows more sharply than what rounding leaves.
            _, behind_unlike = _losses(model, [unlike, second])
    except (TypeError, ValueError, RuntimeError, NotImplementedError):
        return False  # an architecture that takes no positions, say
    finally:
        set_random_state(before)
    alike, apart = TOLERANCE.get(model.dtype, COARSE)
    return math.isclose(packed, alone, rel_tol=alike) and math.isclose(behind, behind_unlike, rel_tol=apart)


@contextmanager
def _stirred(model: Any) -> Generator[None]:
    """Have the adapter do something: what a new one mixes would not show, because it changes nothing yet."""
    kept = [(parameter, parameter.clone()) for parameter in model.parameters() if parameter.requires_grad]
    for parameter, _ in kept:
        parameter.add_(torch.randn_like(parameter), alpha=STIRRED)
    try:
        yield
    finally:
        for parameter, value in kept:
            parameter.copy_(value)


def _losses(model: Any, rows: list[Row]) -> tuple[float, float]:
    """Return the loss of rows that are packed, and the last one's share in it."""
    batch = pack(rows, model.device)
    with rows_apart(model, batch):
        losses = -token_log_probs(model, batch)
    return losses.sum().item(), losses[-rows[-1].supervised :].sum().item()


def _all_of(row: Row) -> Row:
    ids = row.ids[:SHORT]
    return Row(ids, np.ones(len(ids), dtype=np.bool_))
