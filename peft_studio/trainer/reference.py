"""What the base model makes of the rows: asked once, before there is an adapter, and kept in the run directory."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from peft_studio.run_dir import RunDir, replace_file
from peft_studio.trainer.data import Encoded, Group, epoch_order
from peft_studio.trainer.objectives.criterion import Criterion
from peft_studio.trainer.report import Reporter
from peft_studio.trainer.schedule import Schedule
from peft_studio.trainer.stop import StopSignal

FILE = "reference.safetensors"
Part = Encoded[Group]


def ask_base(
    run: RunDir,
    model: Any,
    criterion: Criterion[Group],
    parts: tuple[Part, Part],
    schedule: Schedule,
    purpose: str,
    report: Reporter,
    stop: StopSignal,
) -> tuple[Part, Part]:
    """
    Add to all rows that will be looked at what the base model, without an adapter, makes of them.

    An attempt that goes on takes the first one's numbers, to the bit.
    """
    train, held_out = parts
    seen = _seen(len(train.rows), schedule)
    items = [*(train.rows[i] for i in seen), *held_out.rows]
    known = _load(run, purpose, len(items))
    if known is None:
        report.log(f"Asking the base model about {len(items)} rows...")
        rows, others = (criterion.with_reference(model, some, stop) for some in (items[: len(seen)], held_out.rows))
        known = np.stack([row.reference for row in (*rows, *others) if row.reference is not None])
        content = safetensors.numpy.save({"log_probs": known}, {"purpose": purpose})
        replace_file(run.path / FILE, content)
    told = list(train.rows)
    for place, reference in zip(seen, known[: len(seen)], strict=True):
        told[place] = replace(told[place], reference=reference)
    others = [replace(row, reference=each) for row, each in zip(held_out.rows, known[len(seen) :], strict=True)]
    return replace(train, rows=told), replace(held_out, rows=others)


def _seen(count: int, schedule: Schedule) -> Sequence[int]:
    """Say which rows training will look at: all of them, unless it ends within the first epoch."""
    config = schedule.config
    return epoch_order(count, config.seed, 0)[: schedule.total * config.effective_batch_size]


def _load(run: RunDir, purpose: str, count: int) -> NDArray[np.float64] | None:
    try:
        with safe_open(run.path / FILE, "np") as file:
            known: NDArray[np.float64] = file.get_tensor("log_probs")
            return known if file.metadata() == {"purpose": purpose} and len(known) == count else None
    except (OSError, SafetensorError):
        return None
