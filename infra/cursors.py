"""Cursors of lists that are sorted by time: the place of the last thing shown, which need not be there any more."""

import re
from datetime import UTC, datetime, timedelta

from peft_studio.errors import InvalidConfig

Place = tuple[datetime, str]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WRITTEN = re.compile(r"([0-9]{1,16})\.([a-z]+_[0-9a-z]{1,64})", re.ASCII)


def write_cursor(place: Place) -> str:
    """Write down where a page ended: when that was made, and its id."""
    return f"{(place[0] - _EPOCH) // timedelta(microseconds=1)}.{place[1]}"


def read_cursor(cursor: str) -> Place:
    """Read a place; raises ``InvalidConfig`` for anything else."""
    if (found := _WRITTEN.fullmatch(cursor)) is None:
        raise not_a_cursor()
    return _EPOCH + timedelta(microseconds=int(found[1])), found[2]


def not_a_cursor() -> InvalidConfig:
    """Return the error for a cursor that no list has given."""
    return InvalidConfig("This is not a cursor of this list.", field="cursor", issue="Send one you received")
