"""How often a job was taken up, whether its process is there, and how it had ended before it was."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound

from infra.flow_runs import TAKEN_UP, end_in
from infra.jobs.control import RETRIED
from infra.jobs.holds import begun_again_by
from infra.jobs.recovery import ENGINE, Recovery, is_starting, times_taken_up


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


SCHEDULED, RUNNING, COMPLETED = StateType.SCHEDULED, StateType.RUNNING, StateType.COMPLETED
FAILED, CANCELLED, PENDING = StateType.FAILED, StateType.CANCELLED, StateType.PENDING


@pytest.mark.parametrize(
    ("history", "end"),
    [
        ([(SCHEDULED, None), (PENDING, None), (RUNNING, None)], None),
        ([(SCHEDULED, None), (RUNNING, None), (SCHEDULED, TAKEN_UP), (RUNNING, None)], None),
        # Its process was only slow: it ends the run before, or after, the next one has begun.
        ([(SCHEDULED, None), (RUNNING, None), (SCHEDULED, TAKEN_UP), (RUNNING, None), (COMPLETED, None)], COMPLETED),
        ([(SCHEDULED, None), (RUNNING, None), (SCHEDULED, TAKEN_UP), (COMPLETED, None), (RUNNING, None)], COMPLETED),
        ([(SCHEDULED, None), (RUNNING, None), (COMPLETED, None), (SCHEDULED, TAKEN_UP), (RUNNING, None)], COMPLETED),
        ([(SCHEDULED, None), (RUNNING, None), (FAILED, "why"), (SCHEDULED, TAKEN_UP), (RUNNING, None)], FAILED),
        ([(SCHEDULED, None), (CANCELLED, None), (RUNNING, None)], CANCELLED),
        ([(SCHEDULED, None), (FAILED, "why"), (SCHEDULED, RETRIED), (RUNNING, None)], None),
        ([(SCHEDULED, None), (CANCELLED, None), (SCHEDULED, RETRIED), (PENDING, None), (RUNNING, None)], None),
    ],
)
def test_a_run_that_an_earlier_process_has_ended_is_not_carried_out_again(
    history: list[tuple[StateType, str | None]], end: StateType | None
) -> None:
    told = of_kinds(history)
    for order in (told, told[::-1]):
        found = end_in(order)
        assert (found and found.type) == end


def of_kinds(history: list[tuple[StateType, str | None]]) -> list[State]:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        State(type=kind, message=message, timestamp=began + timedelta(seconds=number))
        for number, (kind, message) in enumerate(history)
    ]


ELSEWHERE = "Retry from the UI"


@pytest.mark.parametrize(
    ("history", "by"),
    [
        ([(SCHEDULED, None), (PENDING, None), (RUNNING, None)], None),
        ([(SCHEDULED, None), (RUNNING, None), (FAILED, "why"), (SCHEDULED, RETRIED), (RUNNING, None)], None),
        ([(SCHEDULED, None), (RUNNING, None), (FAILED, "why"), (SCHEDULED, ELSEWHERE), (RUNNING, None)], ELSEWHERE),
        (
            [(SCHEDULED, None), (CANCELLED, None), (SCHEDULED, ELSEWHERE), (SCHEDULED, "Late"), (RUNNING, None)],
            ELSEWHERE,
        ),
        ([(FAILED, "why"), (SCHEDULED, ELSEWHERE), (RUNNING, None), (SCHEDULED, TAKEN_UP), (RUNNING, None)], ELSEWHERE),
        ([(FAILED, "why"), (SCHEDULED, ELSEWHERE), (FAILED, "why"), (SCHEDULED, RETRIED), (RUNNING, None)], None),
        (
            [(RUNNING, None), (StateType.PAUSED, None), (SCHEDULED, "Resuming"), (RUNNING, None)],
            None,
        ),
        ([(SCHEDULED, None), (RUNNING, None), (FAILED, "why"), (SCHEDULED, TAKEN_UP), (RUNNING, None)], None),
    ],
)
def test_a_run_that_was_tried_again_elsewhere_than_in_the_api_is_told_from_others(
    history: list[tuple[StateType, str | None]], by: str | None
) -> None:
    told = of_kinds(history)
    for order in (told, told[::-1]):
        found = begun_again_by(order)
        assert (found and found.message) == by


def test_a_process_that_takes_long_to_begin_is_not_dead() -> None:
    command = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()", ENGINE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        name = str(process.pid)
        assert process.stdout and process.stdout.readline()  # its command is there to be read only once it runs
        assert is_starting(name)
        process.communicate()
    assert not is_starting(name) and not is_starting(None) and not is_starting("pod-7")


class Stumbling(Recovery):
    """Looks after runs, one of which it cannot."""

    def __init__(self, *troubles: Exception):
        self._troubles, self.seen = list(troubles), list[FlowRun]()

    def _is_dead(self, run: FlowRun, state: State) -> bool:
        return True

    async def _take_up(self, client: Any, run: FlowRun, state: State) -> None:
        self.seen.append(run)
        if self._troubles:
            raise self._troubles.pop()


@pytest.mark.anyio
@pytest.mark.parametrize("trouble", [ObjectNotFound(Exception()), OSError(28, "the disk is full"), KeyError("reason")])
async def test_a_run_that_cannot_be_looked_after_keeps_nobody_from_the_others(trouble: Exception) -> None:
    runs = [FlowRun(flow_id=uuid4(), state=State(type=StateType.RUNNING)) for _ in range(2)]
    recovery = Stumbling(trouble)
    await recovery.check(Any, runs)
    assert recovery.seen == runs
