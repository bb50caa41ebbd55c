"""What a job may spend on machines: caps, what is near them, and costs that nobody knows."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from infra.machines.meter import WARN_AT, Limits, affordable, out_of_reach, read
from peft_studio.errors import BudgetExceeded, TimedOut
from peft_studio.events import now
from peft_studio.machines import MachineReceipt, MachineStatus
from tests.rented_jobs import offer

NOW = now()


def receipt(status: MachineStatus = MachineStatus.READY, minutes: float = 60, **changes: Any) -> MachineReceipt:
    """A machine at a dollar an hour, for so many minutes until now."""
    began = NOW - timedelta(minutes=minutes)
    given = {
        "name": "n",
        "provider": "runpod",
        "resource_id": "gpu-l4",
        "job_id": "job_1",
        "attempt": 1,
        "status": status,
        "offered_rate": 1.0,
        "billing_increment": 1,
        "intended_at": began,
        "rented_at": began,
    }
    return MachineReceipt.model_validate(given | changes)


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def test_the_meter_runs_at_the_rate_that_was_read_after_the_machine_was_up() -> None:
    assert read([receipt()], Limits(), NOW).cost == pytest.approx(1.0)
    assert read([receipt(hourly_rate=3.0)], Limits(), NOW).cost == pytest.approx(3.0)


def test_every_increment_that_is_begun_counts() -> None:
    assert read([receipt(minutes=0.5, billing_increment=3600)], Limits(), NOW).cost == pytest.approx(1.0)


def test_all_of_a_jobs_machines_count_and_those_that_never_were_do_not() -> None:
    earlier = receipt(MachineStatus.GONE, cost=2.0, gone_at=NOW)
    never = receipt(MachineStatus.NEVER, cost=0.0, rented_at=None)
    assert read([earlier, never, receipt()], Limits(), NOW).cost == pytest.approx(3.0)


def test_there_is_a_warning_before_the_cap_and_room_to_save_a_checkpoint_below_it() -> None:
    limits = Limits(cost=2.0, reserve_seconds=360)
    assert read([receipt()], limits, at(35)).share < WARN_AT <= read([receipt()], limits, at(36)).share
    assert read([receipt()], limits, at(53)).over is None
    ended = read([receipt()], limits, at(54.1))
    assert ended.over == "cost" and ended.cost + 0.1 <= 2.01


def test_time_is_a_limit_of_its_own() -> None:
    limits = Limits(minutes=90)
    assert read([receipt()], limits, at(29)).over is None
    assert read([receipt()], limits, at(30)).over == "minutes"
    assert read([receipt()], limits, at(15)).share == pytest.approx(75 / 90)


def test_a_machine_that_nobody_knows_of_counts_as_if_it_were_there() -> None:
    unknown = receipt(MachineStatus.INTENDED, rented_at=None)
    assert read([unknown], Limits(cost=5.0), NOW).cost == pytest.approx(1.0)
    left = Limits(cost=5.0, reserve_seconds=0).seconds_left
    unknown = receipt(MachineStatus.INTENDED, rented_at=None, intended_at=now() - timedelta(hours=1))
    known = receipt(MachineStatus.GONE, cost=3.0, gone_at=NOW)
    assert left([known, unknown], 1.0, 1e9) == pytest.approx(3600, abs=60)


def test_a_further_machine_is_had_for_what_is_left() -> None:
    known = receipt(MachineStatus.GONE, cost=3.0, gone_at=NOW)
    assert Limits(cost=5.0, reserve_seconds=100).seconds_left([known], 2.0, 1e9) == pytest.approx(3500)
    assert Limits(cost=3.0).seconds_left([known], 2.0, 1e9) < 0
    assert Limits(minutes=90).seconds_left([known], 2.0, 1e9) == pytest.approx(1800, abs=60)
    assert Limits().seconds_left([known], 2.0, 1234) == 1234
    assert Limits(cost=1.0).seconds_left([], 0.0, 1234) == 1234  # one's own machine costs nothing


def test_each_machine_is_had_for_what_its_own_price_leaves_not_that_of_the_dearest() -> None:
    cheap, dear, dearest = offer("gpu-l4", 0.5), offer("gpu-h100", 5.0), offer("gpu-h100-x8", 40.0)
    paid = affordable([cheap, dear, dearest], [], Limits(cost=1.0, reserve_seconds=90), 3600 * 72)
    assert [one.offer.resource_id for one in paid] == ["gpu-l4", "gpu-h100"]  # the last for no time at all
    assert [one.seconds for one in paid] == [pytest.approx(2 * 3600 - 90), pytest.approx(720 - 90)]


@pytest.mark.parametrize(
    ("limits", "earlier", "kind", "said"),
    [
        (Limits(cost=100.0, minutes=61), [receipt()], TimedOut, "max_duration"),
        (Limits(cost=1.01, minutes=600), [receipt()], BudgetExceeded, "it goes on from its last checkpoint"),
        (Limits(cost=0.001), [], BudgetExceeded, "Raise max_cost."),
    ],
)
def test_the_limit_that_leaves_no_machine_is_the_one_that_is_named(
    limits: Limits, earlier: list[MachineReceipt], kind: type[Exception], said: str
) -> None:
    assert affordable([offer("gpu-l4", 0.5)], earlier, limits, 1e6) == []
    error = out_of_reach(limits, earlier)
    assert isinstance(error, kind) and said in str(error.details["issue"])
