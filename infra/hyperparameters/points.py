"""The points of a sweep: laid out, drawn or listed, each checked, none twice."""

import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from peft_studio.config import TrainingConfig
from peft_studio.errors import InvalidConfig
from peft_studio.sweeps import Changes, Choice, Distribution, Integer, LogUniform, SweepConfig, changed

_MOST_ISSUES = 100
_DIGITS = 6  # of a number that was drawn; further ones make no difference to training


def points_of(sweep: SweepConfig, most: int) -> list[Changes]:
    """Return what is different at each point, in order; raises ``InvalidConfig`` where they are too many, or unsaid."""
    said = [name for name in ("grid", "random", "points") if getattr(sweep, name) is not None]
    if len(said) != 1:
        field = said[1] if said else "points"
        raise InvalidConfig.of(field, "give exactly one of grid, random and points")
    count = _count(sweep)
    if count > most:
        raise InvalidConfig.of(said[0], f"{count} points; at most {most} are allowed")
    if sweep.grid is not None:
        return [dict(zip(sweep.grid, values, strict=True)) for values in itertools.product(*sweep.grid.values())]
    if sweep.random is not None:
        source = random.Random(sweep.random.seed)
        parameters = sweep.random.parameters
        return [{name: _draw(parameters[name], source) for name in parameters} for _ in range(sweep.random.samples)]
    return [dict(point) for point in sweep.points or ()]


def distinct(config: TrainingConfig, points: Sequence[Changes]) -> tuple[list[Changes], list[TrainingConfig]]:
    """
    Return the points that differ, and the configuration of each.

    Raises ``InvalidConfig`` with all that is wrong, each as ``points[3].rank``.
    """
    kept: list[Changes] = []
    configs: list[TrainingConfig] = []
    issues: list[dict[str, str]] = []
    seen: set[str] = set()
    for place, changes in enumerate(points):
        try:
            found = changed(config, changes)
        except ValidationError as error:
            issues += [
                {"field": at(place, *map(str, one["loc"])), "issue": _issue(one)}
                for one in error.errors(include_url=False, include_input=False)
            ]
            continue
        if (content := found.model_dump_json()) not in seen:
            seen.add(content)
            kept.append(changes)
            configs.append(found)
    if issues:
        raise InvalidConfig("Points of the sweep are invalid.", **issues[0], errors=issues[:_MOST_ISSUES])
    return kept, configs


def at(place: int, *names: str) -> str:
    """Name a field of a point, as errors do."""
    return ".".join((f"points[{place}]", *names))


def _count(sweep: SweepConfig) -> int:
    if sweep.grid is not None:
        return math.prod(map(len, sweep.grid.values()))
    return sweep.random.samples if sweep.random is not None else len(sweep.points or ())


def _draw(distribution: Distribution, source: random.Random) -> Any:
    match distribution:
        case Choice(values=values):
            return source.choice(values)
        case Integer(low=low, high=high):
            return source.randint(low, high)
        case LogUniform(low=low, high=high):
            return _rounded(math.exp(source.uniform(math.log(low), math.log(high))))
        case _:
            return _rounded(source.uniform(distribution.low, distribution.high))


def _issue(error: ErrorDetails) -> str:
    return "Unknown field" if error["type"] == "extra_forbidden" else error["msg"].removeprefix("Value error, ")


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
