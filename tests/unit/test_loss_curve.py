"""The picture of the loss."""

import base64

from infra.jobs.loss_curve import loss_curve


def test_a_curve_is_a_png_that_prefect_can_show() -> None:
    points = [{"step": float(step), "loss": 1 / (step + 1)} for step in range(20)]
    picture = loss_curve([*points, {"step": 19.0, "eval_loss": 0.1}])
    assert picture is not None
    kind, _, content = picture.partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content).startswith(b"\x89PNG")


def test_no_steps_make_no_picture() -> None:
    assert loss_curve([{"step": 1.0, "eval_loss": 0.3}]) is None
