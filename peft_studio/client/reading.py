"""Answers read: as what the operation promises, or raised as the error that they are."""

from typing import Any, TypeVar

import httpx

from peft_studio.client.calls import Call
from peft_studio.client.retrying import error_of
from peft_studio.errors import InternalError

T = TypeVar("T")


def read_answer(call: Call[T], response: httpx.Response) -> T:
    """Read an answer; raises the ``StudioError`` of its code where it is one."""
    if response.is_error:
        raise error_of(response)
    try:
        return call.read(response)
    except (ValueError, KeyError, TypeError) as error:  # pydantic's errors are among them
        raise InternalError(
            f"The answer to {call.method} {call.path} is not one that this client understands:"
            " are its version and the studio's far apart?",
            issue=_in_short(error),
        ) from error


def _in_short(error: Any) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
