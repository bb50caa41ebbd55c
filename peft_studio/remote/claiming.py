"""How a machine comes to its work: by its claim, or by what it has kept of it where its container was started anew."""

import hashlib
import secrets
import time
from contextlib import suppress
from pathlib import Path

import httpx
from pydantic import BaseModel, ValidationError

from peft_studio.remote import work_folder
from peft_studio.remote.assignment import Assignment
from peft_studio.remote.courier import claim
from peft_studio.run_dir import for_owner, write_whole


class _Kept(BaseModel):
    """Work as it was claimed; what is secret in it of the user's lies in a file of its own."""

    assignment: Assignment
    until: float  # by this machine's clock: a container that was started anew has no more time than it had


def claimed(client: httpx.Client, address: str) -> Assignment:
    """
    Return the machine's work, claimed now or before; raises ``Unreachable``, or ``Dismissed`` where there is none.

    A claim may be spent by then, so that it is not asked for again: in a bucket it is gone once it was of use.
    """
    file = work_folder() / f"work-{hashlib.sha256(address.encode()).hexdigest()[:16]}.json"
    with suppress(FileNotFoundError, ValidationError):
        kept = _Kept.model_validate_json(file.read_bytes())
        return kept.assignment.model_copy(update={"deadline_seconds": max(0.0, kept.until - time.time())})
    assignment = claim(client, address, _claimant())
    own = assignment.model_copy(update={"secrets": {}})
    _keep(file, _Kept(assignment=own, until=time.time() + assignment.deadline_seconds).model_dump_json())
    return assignment


def _claimant() -> str:
    """Return the name this machine claims by: the same where the answer was lost with its container."""
    file = work_folder() / "claimant"
    if not file.is_file():
        _keep(file, secrets.token_urlsafe(24))
    return file.read_text()


def _keep(file: Path, text: str) -> None:
    """Write a file that its owner alone may read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, for_owner(text))
