"""Curves: metrics of several jobs by optimizer step, read from their run directories."""

from collections.abc import Sequence

from peft_studio.events import Metrics
from peft_studio.experiments import Curve
from peft_studio.run_dir import RunDir

MOST_STEPS = 500  # of one curve; of more, so many are kept at even distances, the first and the last among them
Points = dict[int, float]


def read_curves(runs: Sequence[RunDir], names: Sequence[str]) -> dict[str, Curve]:
    """Read metrics of runs, aligned by step; one that no run has is left out. Reads whole files: run it in a thread."""
    by_run = [read_points(run, names) for run in runs]
    return {name: aligned([points[name] for points in by_run]) for name in names if any(p[name] for p in by_run)}


def aligned(series: Sequence[Points]) -> Curve:
    """Put series of points side by side, at the steps that any of them has."""
    steps = _thinned(sorted(set().union(*series)))
    return Curve(steps=steps, values=[[points.get(step) for step in steps] for points in series])


def read_points(run: RunDir, names: Sequence[str]) -> dict[str, Points]:
    """Read a run's values by step; a step that was done again after an interruption counts as it was done last."""
    points: dict[str, Points] = {name: {} for name in names}
    for _, event in run.events():
        if isinstance(event, Metrics) and "step" in event.metrics:
            for name in points.keys() & event.metrics.keys():
                points[name][int(event.metrics["step"])] = event.metrics[name]
    return points


def _thinned(steps: list[int]) -> list[int]:
    if len(steps) <= MOST_STEPS:
        return steps
    return [steps[place * (len(steps) - 1) // (MOST_STEPS - 1)] for place in range(MOST_STEPS)]
