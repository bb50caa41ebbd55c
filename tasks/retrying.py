"""When a step is tried again: by class of error, never blindly."""

from collections.abc import Callable
from typing import Any

from prefect.client.schemas.objects import State


def retry_on(*kinds: type[Exception]) -> Callable[[Any, Any, State[Any]], bool]:
    """Return a Prefect retry condition that holds for these errors alone."""

    def condition(task: Any, task_run: Any, state: State[Any]) -> bool:
        return isinstance(state.result(raise_on_failure=False), kinds)

    return condition
