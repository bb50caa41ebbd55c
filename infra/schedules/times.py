"""When a schedule runs, by the very code that Prefect runs it by."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

from peft_studio.errors import InvalidConfig

_LOOK_AHEAD = 100  # runs; more than a day's, at the shortest time between two that is usual


async def next_runs(cron: str, timezone: str, count: int, after: datetime | None = None) -> Sequence[datetime]:
    """Return the next times; raises ``ValueError`` for what is no cron expression, or never comes true."""
    # Not at the top of the module: it takes half a second, and most who import this never ask.
    from prefect.server.schemas.schedules import CronSchedule

    after = after or datetime.now(UTC)
    found = await CronSchedule(cron=cron, timezone=timezone).get_dates(count + 1, after)
    zone = ZoneInfo(timezone)
    times = [datetime.fromtimestamp(time.timestamp(), zone) for time in found]
    return [time for time in times if time > after][:count]


async def check_times(cron: str, timezone: str, minutes: float) -> None:
    """Refuse a time zone that nobody knows, and times that never come or follow each other too fast."""
    if timezone not in available_timezones():
        raise InvalidConfig.of("timezone", f"{timezone!r} is no IANA time zone; write one like Europe/Berlin")
    if len(cron.split()) not in (1, 5):
        raise InvalidConfig.of("cron", "Must have five parts: minute, hour, day of the month, month, day of the week")
    try:
        times = await next_runs(cron, timezone, _LOOK_AHEAD)
    except (ValueError, OverflowError):  # of croniter's, those too
        times = []
    if not times:
        raise InvalidConfig.of("cron", f"{cron!r} is no cron expression, or its time never comes")
    shortest = min(((later - earlier).total_seconds() / 60 for earlier, later in pairwise(times)), default=minutes)
    if shortest < minutes:
        raise InvalidConfig.of(
            "cron", f"its runs follow each other after {shortest:g} minutes; {minutes:g} are the least"
        )
