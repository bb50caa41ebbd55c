"""Training that was taken up again goes on, or is stopped for all to see."""

import math
import random

import pytest

from peft_studio.continuity import Continuity
from peft_studio.errors import ResumeMismatch
from peft_studio.events import Event, Log, Metrics


def loss(step: int, value: float) -> Event:
    return Metrics(job_id="job_1", metrics={"step": float(step), "epoch": 0.0, "loss": value})


def curve(step: int) -> float:
    """A loss that falls and is noisy, as real ones are."""
    return 2.5 * math.exp(-step / 60) + 1 + 0.1 * random.Random(step).uniform(-1, 1)


def watching(last: int) -> Continuity:
    continuity = Continuity()
    for step in range(1, last + 1):
        continuity.knows(loss(step, curve(step)))
    return continuity


def test_the_same_losses_again_pass_and_so_does_what_follows_them() -> None:
    continuity = watching(40)
    for step in range(31, 80):
        continuity.saw(loss(step, curve(step)))


def test_what_another_gpu_rounds_differently_passes() -> None:
    continuity = watching(40)
    for step in range(31, 80):
        continuity.saw(loss(step, curve(step) * (1 + 0.02 * (-1) ** step)))


def test_a_step_that_has_another_loss_fails_loudly() -> None:
    continuity = watching(40)
    continuity.saw(loss(31, curve(31)))
    with pytest.raises(ResumeMismatch, match="Step 32"):
        continuity.saw(loss(32, curve(32) + 1.0))


def test_training_from_the_beginning_instead_of_the_checkpoint_fails_loudly() -> None:
    continuity = watching(200)
    with pytest.raises(ResumeMismatch, match="on average"):
        for step in range(201, 220):
            continuity.saw(loss(step, curve(step - 200)))


def test_no_step_that_comes_twice_and_no_jump_passes() -> None:
    continuity = watching(200)
    for step in range(201, 260):
        continuity.saw(loss(step, curve(step)))


def test_the_first_attempt_is_compared_with_nothing() -> None:
    continuity = Continuity()
    for step, value in enumerate((2.0, 9.0, 0.1, 7.0), 1):
        continuity.saw(loss(step, value))
    continuity.saw(Log(job_id="job_1", message="x"))


def test_a_loss_that_is_no_number_does_not_pass_for_the_same() -> None:
    continuity = watching(40)
    with pytest.raises(ResumeMismatch):
        continuity.saw(loss(31, math.nan))
