"""
Asynchronous successive halving: who goes on at a rung; arithmetic alone.

Li et al., A System for Massively Parallel Hyperparameter Tuning, 2018 (arXiv:1810.05934), in the variant that stops a
point at once where it is not among the best so far, and so needs nobody to be paused.
"""

import math
import sys
from collections.abc import Collection, Mapping, Sequence

from pydantic import BaseModel

from peft_studio.experiments import Direction
from peft_studio.sweeps import EarlyStopping

_WORST: dict[Direction, float] = {"maximize": -sys.float_info.max, "minimize": sys.float_info.max}


class Verdicts(BaseModel):
    """What a sweep has decided, by numbers of points; kept, so that it decides nothing twice."""

    rungs: dict[int, dict[int, float]] = {}  # by steps: the metric of each point that got so far
    stopped: dict[int, str] = {}
    refused: dict[int, str] = {}

    def values_of(self, number: int) -> dict[int, float]:
        """Return a point's metric at each rung it has reached."""
        return {rung: values[number] for rung, values in self.rungs.items() if number in values}


def passes(value: float, others: Collection[float], factor: int, direction: Direction) -> bool:
    """Whether a value is among the best ``1 / factor`` of itself and ``others``; one of them always is."""
    room = max(1, (len(others) + 1) // factor)
    return sum(_is_better(other, value, direction) for other in others) < room


def judge(
    verdicts: Verdicts,
    number: int,
    curve: Mapping[int, float],
    stopping: EarlyStopping,
    direction: Direction,
    metric: str,
    live: bool,
) -> bool:
    """
    Put a point's ``curve`` (metric by step) to the rungs it has newly reached; whether there were any.

    A rung's value is the first one at its step or after. A point that has ended counts for others, and is not stopped.
    """
    found = False
    for rung in stopping.rungs:
        if number in verdicts.rungs.get(rung, {}):
            continue
        if (value := _value_at(curve, rung)) is None:
            break
        found, values = True, verdicts.rungs.setdefault(rung, {})
        value = value if math.isfinite(value) else _WORST[direction]
        others = list(values.values())
        values[number] = value
        if live and not passes(value, others, stopping.reduction_factor, direction):
            room = max(1, len(values) // stopping.reduction_factor)
            verdicts.stopped[number] = (
                f"At step {rung} its {metric} of {value:.6g} was not among the best {room} of {len(values)} points."
            )
            break
    return found


def best_of(values: Sequence[tuple[int, float]], direction: Direction) -> int | None:
    """Return the number of the best value, the first of equals."""
    best: tuple[int, float] | None = None
    for number, value in values:
        if math.isfinite(value) and (best is None or _is_better(value, best[1], direction)):
            best = number, value
    return best[0] if best else None


def _value_at(curve: Mapping[int, float], rung: int) -> float | None:
    step = min((step for step in curve if step >= rung), default=None)
    return None if step is None else curve[step]


def _is_better(one: float, other: float, direction: Direction) -> bool:
    return one > other if direction == "maximize" else one < other
