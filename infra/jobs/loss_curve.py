"""The loss curve as a picture."""

import base64
import io
from collections.abc import Iterable


def loss_curve(metrics: Iterable[dict[str, float]]) -> str | None:
    """Draw loss, and held-out loss where measured, over optimizer steps as a PNG ``data:`` URL; None for no points."""
    points = list(metrics)
    train = [(point["step"], point["loss"]) for point in points if "loss" in point]
    held_out = [(point["step"], point["eval_loss"]) for point in points if "eval_loss" in point]
    if not train:
        return None
    from matplotlib.figure import Figure  # slow to import, and needed once a job

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*train, strict=True), linewidth=1, label="training")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "o-", label="held out")
        axes.legend(frameon=False)
    axes.set(xlabel="optimizer step", ylabel="loss (nats a token)")
    axes.spines[["top", "right"]].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode()
