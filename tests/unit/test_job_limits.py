"""A job's limits: its configuration's, those it was tried again with, and what its budgets hold."""

from pathlib import Path

import pytest

from infra.jobs.limits import FILE, limits_of, wanted_again
from infra.settings import Settings
from peft_studio.placement import RaisedLimits
from peft_studio.plan import Estimate, Plan, Range
from peft_studio.run_dir import RunDir
from tests.rented_jobs import DATA, LLAMA, config


def plan(max_cost: float | None = None, high: float | None = None) -> Plan:
    about = Range(low=0, expected=0, high=high or 0)
    return Plan(
        config=config(provider="runpod", max_cost=max_cost, max_duration=60),
        model=LLAMA,
        dataset=DATA,
        cache_key="k",
        total_steps=1,
        estimated_cost=None,
        estimated_duration_minutes=None,
        estimate=None if high is None else Estimate(cost=about, minutes=about, measured_jobs=0),
    )


@pytest.mark.parametrize(
    ("max_cost", "raised", "tags", "cost"),
    [
        (None, None, [], None),
        (3.0, None, [], 3.0),
        (3.0, 8.0, [], 8.0),
        (None, None, ["hold:5.0000", "cap:5.0000"], 5.0),
        (None, None, ["hold:5.0000"], None),  # no budget pays for it
        (3.0, 8.0, ["cap:5.0000"], 5.0),
    ],
)
def test_the_narrowest_limit_counts(
    tmp_path: Path, max_cost: float | None, raised: float | None, tags: list[str], cost: float | None
) -> None:
    run = RunDir(tmp_path / "job_1")
    if raised:
        run.write(FILE, RaisedLimits(max_cost=raised))
    limits = limits_of(plan(max_cost), run, Settings(data_dir=tmp_path), tags)
    assert (limits.cost, limits.minutes) == (cost, 60)


def test_minutes_are_raised_as_well(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "job_1")
    run.write(FILE, RaisedLimits(max_duration=90))
    assert limits_of(plan(), run, Settings(data_dir=tmp_path)).minutes == 90


def test_a_job_that_is_tried_again_wants_its_limit_or_what_it_has_cost_and_an_estimate(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "job_1")
    assert wanted_again(plan(3.0), run, RaisedLimits(max_cost=8)) == 8
    assert wanted_again(plan(3.0), run, RaisedLimits()) == 3
    assert wanted_again(plan(high=2.5), run, RaisedLimits()) == 2.5
    assert wanted_again(plan(), run, RaisedLimits()) is None
    run.write(FILE, RaisedLimits(max_cost=7))  # it was tried again before
    assert wanted_again(plan(3.0), run) == 7
    assert wanted_again(plan(3.0), run, RaisedLimits(max_cost=8)) == 8
