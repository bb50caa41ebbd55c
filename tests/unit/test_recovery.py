"""How often a job was taken up."""

from datetime import UTC, datetime, timedelta

from prefect.client.schemas.objects import State, StateType

from infra.job_control import RETRIED
from infra.recovery import TAKEN_UP, times_taken_up


def states(*messages: str | None) -> list[State]:
    """States with these messages, one second after the other."""
    began = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        State(type=StateType.SCHEDULED, message=message, timestamp=began + timedelta(seconds=number))
        for number, message in enumerate(messages)
    ]


def test_deaths_are_counted_since_the_job_began() -> None:
    assert times_taken_up(states(None, TAKEN_UP, None, TAKEN_UP)) == 2
    assert times_taken_up([]) == 0


def test_a_job_that_is_tried_again_may_die_as_often_as_a_new_one() -> None:
    history = states(TAKEN_UP, TAKEN_UP, TAKEN_UP, "died", RETRIED, TAKEN_UP)
    assert times_taken_up(history) == 1
    assert times_taken_up(history[::-1]) == 1
