"""
One push, in a process of its own: ``python -m infra.registries``.

It is told by its standard input what to send where, with the credentials, and says on its standard output what came of
it. What the registries' libraries read from the environment, write and wait for thus ends with this process.
"""

import sys
from pathlib import Path

from pydantic import BaseModel, SecretStr

from infra.registries.parcel import Parcel, Pushed
from peft_studio.errors import InternalError, ResourceUnavailable, StudioError
from peft_studio.registries import HuggingFaceRegistry, Registry


class Order(BaseModel):
    """What is to be sent where."""

    registry: Registry
    parcel: Parcel
    values: dict[str, SecretStr]
    address: str


class Answer(BaseModel):
    """What came of it: a version in the registry, or why there is none, and whether it helps to wait."""

    pushed: Pushed | None = None
    error: str | None = None
    passes: bool = False
    retry_after_seconds: int | None = None


def push(registry: Registry, parcel: Parcel, values: dict[str, str], address: str) -> Pushed:
    """Send a parcel; sending it again changes nothing. Raises a ``StudioError``."""
    # Each of the two libraries takes long to import, and a push needs one of them.
    if isinstance(registry, HuggingFaceRegistry):
        from infra.registries import huggingface

        return huggingface.push(registry, parcel, values, address)
    from infra.registries import s3

    return s3.push(registry, parcel, values, address)


def carry_out(order: Order) -> Answer:
    """Send a parcel and put into words what came of it."""
    try:
        values = {name: value.get_secret_value() for name, value in order.values.items()}
        return Answer(pushed=push(order.registry, order.parcel, values, order.address))
    except StudioError as error:
        wait = error.details.get("retry_after_seconds")
        passes = isinstance(error, ResourceUnavailable)
        return Answer(error=error.message, passes=passes, retry_after_seconds=wait)
    except Exception as error:  # its text may hold what was sent
        return Answer(error=f"{InternalError().message} {type(error).__name__} in {Path(__file__).parent.name}.")


def answer_to(order: bytes) -> bytes:
    """Carry out an order as it comes; return the answer as it goes."""
    return carry_out(Order.model_validate_json(order)).model_dump_json().encode()


if __name__ == "__main__":
    sys.stdout.buffer.write(b"\n" + answer_to(sys.stdin.buffer.read()) + b"\n")
