"""The curves of a comparison as a picture."""

import io
from typing import Any, Literal

from peft_studio.experiments import Comparison

Kind = Literal["png", "svg"]
MEDIA_TYPES: dict[Kind, str] = {"png": "image/png", "svg": "image/svg+xml"}
_MOST_NAMED = 12  # lines that a legend has room for


def draw(comparison: Comparison, kind: Kind) -> bytes:
    """Draw a panel for each metric, with a line for each experiment; the best performer's is the thickest."""
    import matplotlib
    from matplotlib.figure import Figure  # slow to import, and seldom needed

    names = list(comparison.curves)
    figure = Figure(figsize=(7, 3.2 * max(1, len(names))), layout="constrained")
    panels = figure.subplots(max(1, len(names)), squeeze=False)[:, 0]
    for name, axes in zip(names, panels, strict=False):
        _panel(axes, comparison, name)
    if not names:
        panels[0].set_axis_off()
        panels[0].text(0.5, 0.5, "No experiment has any of these metrics yet.", ha="center")
    picture = io.BytesIO()
    # The same picture is the same bytes, whenever it is drawn.
    with matplotlib.rc_context({"svg.hashsalt": "peft-studio"}):
        figure.savefig(picture, format=kind, dpi=110, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return picture.getvalue()


def _panel(axes: Any, comparison: Comparison, name: str) -> None:
    curve = comparison.curves[name]
    for experiment_id, values in zip(comparison.experiment_ids, curve.values, strict=True):
        points = [(step, value) for step, value in zip(curve.steps, values, strict=True) if value is not None]
        if points:
            is_best = experiment_id == comparison.best_performer
            style = "o-" if len(points) < 30 else "-"
            label = f"{experiment_id[:28]}{' ★' if is_best else ''}"
            axes.plot(*zip(*points, strict=True), style, markersize=3, linewidth=2.4 if is_best else 1.1, label=label)
    axes.set(xlabel="optimizer step", ylabel=name)
    axes.spines[["top", "right"]].set_visible(False)
    if len(comparison.experiment_ids) <= _MOST_NAMED:
        axes.legend(frameon=False, fontsize="small")
