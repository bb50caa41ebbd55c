"""How long a model will take to be loaded: from what was measured, or from its size."""

from itertools import count
from pathlib import Path

import pytest

from infra.serving.load_times import LoadTimes

MEGABYTE = 1 << 20


def model(folder: Path, size: int) -> str:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(size))
    return str(folder)


def test_a_model_takes_as_long_as_it_did_in_the_middle(tmp_path: Path) -> None:
    times = LoadTimes(tmp_path)
    for seconds in (3, 100, 5):
        times.note("org/model", seconds)
    assert LoadTimes(tmp_path).estimate("org/model") == 5


def test_of_a_model_that_lies_elsewhere_nothing_is_known_before_it_was_loaded(tmp_path: Path) -> None:
    times = LoadTimes(tmp_path)
    times.note("org/other", 3)
    assert times.estimate("org/model") is None


def test_another_model_takes_as_long_as_the_one_nearest_in_size_and_longer_if_it_is_larger(tmp_path: Path) -> None:
    times = LoadTimes(tmp_path)
    times.note(model(tmp_path / "small", MEGABYTE), 2)
    times.note(model(tmp_path / "large", 8 * MEGABYTE), 10)
    assert times.estimate(model(tmp_path / "tiny", 1000)) == 2
    assert times.estimate(model(tmp_path / "larger", 16 * MEGABYTE)) == pytest.approx(20)


def test_the_first_model_takes_as_long_as_reading_it_and_a_start(tmp_path: Path) -> None:
    seconds = count(step=2)  # every look at the clock is two seconds after the one before
    times = LoadTimes(tmp_path, clock=lambda: float(next(seconds)))
    estimate = times.estimate(model(tmp_path / "one", 3 * MEGABYTE))
    assert estimate is not None and 2 < estimate < 10


def test_only_so_many_are_remembered_and_a_broken_file_costs_only_the_estimate(tmp_path: Path) -> None:
    times = LoadTimes(tmp_path)
    for seconds in [1.0] * 60 + [9.0] * 60:
        times.note("org/model", seconds)
    assert times.estimate("org/model") == 9
    (tmp_path / "load_times.json").write_text('{"loads": [')
    assert times.estimate("org/model") is None
    times.note("org/model", 4)
    assert times.estimate("org/model") == 4
