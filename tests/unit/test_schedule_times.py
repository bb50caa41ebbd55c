"""When schedules run."""

import asyncio
from datetime import UTC, datetime

import pytest

from infra.schedules.times import check_times, next_runs
from peft_studio.errors import InvalidConfig


def test_times_are_those_of_the_time_zone_over_a_change_of_clocks() -> None:
    before = datetime(2026, 10, 24, 12, tzinfo=UTC)  # the clocks of Berlin go back in the night that follows
    found = asyncio.run(next_runs("0 3 * * *", "Europe/Berlin", 2, before))
    assert [time.astimezone(UTC).hour for time in found] == [2, 2]
    assert {time.hour for time in found} == {3}
    before = datetime(2026, 10, 23, 12, tzinfo=UTC)
    assert [time.astimezone(UTC).hour for time in asyncio.run(next_runs("0 3 * * *", "Europe/Berlin", 2, before))] == [
        1,
        2,
    ]


def test_the_time_after_a_run_is_not_its_own() -> None:
    at = datetime(2026, 1, 1, 3, tzinfo=UTC)
    assert asyncio.run(next_runs("0 3 * * *", "UTC", 1, at)) == [datetime(2026, 1, 2, 3, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("cron", "timezone", "field"),
    [
        ("0 3 * * *", "Europe/Nowhere", "timezone"),
        ("61 3 * * *", "UTC", "cron"),
        ("every night", "UTC", "cron"),
        ("0 0 31 2 *", "UTC", "cron"),  # never
        ("* * * * *", "UTC", "cron"),  # too often
        ("0,5 3 * * 1", "UTC", "cron"),  # too often, once a week
        ("0 0 3 * * *", "UTC", "cron"),  # seconds
        ("H 3 * * *", "UTC", "cron"),
    ],
)
def test_what_cannot_be_or_comes_too_often_is_refused_by_field(cron: str, timezone: str, field: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        asyncio.run(check_times(cron, timezone, minutes=15))
    assert caught.value.details["field"] == field


def test_the_least_time_between_two_runs_is_allowed() -> None:
    asyncio.run(check_times("*/15 * * * *", "UTC", minutes=15))
    asyncio.run(check_times("0 3 29 2 *", "America/New_York", minutes=15))
