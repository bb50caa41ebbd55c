"""Which points a sweep has."""

from typing import Any

import pytest

from infra.hyperparameters.points import distinct, points_of
from peft_studio.errors import InvalidConfig
from peft_studio.sweeps import SweepConfig

CONFIG = {"base_model": "org/model", "dataset_path": "/data/rows.jsonl"}


def sweep(**given: Any) -> SweepConfig:
    return SweepConfig.model_validate({"config": CONFIG} | given)


def drawn(seed: int = 0, samples: int = 50) -> list[dict[str, Any]]:
    parameters = {
        "rank": {"distribution": "choice", "values": [4, 8]},
        "dropout": {"distribution": "uniform", "low": 0, "high": 0.2},
        "learning_rate": {"distribution": "log_uniform", "low": 1e-5, "high": 1e-3},
        "batch_size": {"distribution": "integer", "low": 1, "high": 3},
    }
    return points_of(sweep(random={"samples": samples, "seed": seed, "parameters": parameters}), 100)


def test_a_grid_has_every_combination_in_order() -> None:
    points = points_of(sweep(grid={"rank": [4, 8], "seed": [0, 1]}), 100)
    assert points == [{"rank": r, "seed": s} for r in (4, 8) for s in (0, 1)]


def test_random_points_are_within_bounds_and_the_same_for_a_seed() -> None:
    points = drawn()
    assert points == drawn() != drawn(seed=1)
    assert {point["rank"] for point in points} == {4, 8}
    assert {point["batch_size"] for point in points} == {1, 2, 3}
    assert all(0 <= point["dropout"] <= 0.2 and 1e-5 <= point["learning_rate"] <= 1e-3 for point in points)
    below = sum(point["learning_rate"] < 1e-4 for point in points)  # half of the orders of magnitude
    assert 15 < below < 35


def test_a_list_is_taken_as_it_is() -> None:
    assert points_of(sweep(points=[{"rank": 4}, {}]), 100) == [{"rank": 4}, {}]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "points"),
        ({"grid": {"rank": [4]}, "points": [{}]}, "points"),
        ({"grid": {"rank": [4] * 11, "seed": [0] * 10}}, "grid"),
        ({"points": [{}] * 101}, "points"),
    ],
)
def test_a_sweep_says_once_what_varies_and_not_too_much(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        points_of(sweep(**given), 100)
    assert caught.value.details["field"] == field


def test_points_that_are_the_same_in_force_are_one() -> None:
    config = sweep(points=[{}]).config
    kept, configs = distinct(config, [{"rank": 8}, {}, {"rank": 4}, {"rank": 4, "alpha": 16}])
    assert kept == [{"rank": 8}, {"rank": 4}]  # 8 and 16 are the defaults
    assert [one.rank for one in configs] == [8, 4]


def test_everything_that_is_wrong_with_points_is_said_with_its_place() -> None:
    config = sweep(points=[{}]).config
    with pytest.raises(InvalidConfig) as caught:
        distinct(config, [{"rank": 4}, {"rank": 0}, {"nonsense": 1}, {"rank": "8"}, {"algorithm": "loraa"}])
    fields = [issue["field"] for issue in caught.value.details["errors"]]
    assert fields == ["points[1].rank", "points[2].nonsense", "points[3].rank", "points[4].algorithm"]
    assert caught.value.details["field"] == "points[1].rank"
