"""Whether a tracker's library is there to be used."""

import subprocess
import sys
from functools import cache
from importlib.util import find_spec

from infra.settings import Settings
from infra.trackers.destinations import python_of, tracker_of
from peft_studio.config import TrainingConfig
from peft_studio.trackers.table import LIBRARIES

_SECONDS = 30.0


def missing(config: TrainingConfig, settings: Settings) -> str | None:
    """Say what is to be installed for a job's tracker; None where nothing is. May start another Python."""
    tracker = tracker_of(config)
    if tracker is None:
        return None
    library, python = LIBRARIES[tracker], python_of(tracker, settings)
    if python == sys.executable:
        return None if find_spec(library.module) else f"{tracker}'s library is not installed; run: {library.command}"
    if _has(python, library.module):
        return None
    return f"the Python {python} has no {library.module} and peft-studio; have it run: {library.command}"


@cache
def _found(python: str, module: str) -> None:
    """Return where both can be imported; raises otherwise, so that only a success is remembered."""
    code = f"import importlib.util as u, sys; sys.exit(not (u.find_spec({module!r}) and u.find_spec('peft_studio')))"
    subprocess.run([python, "-c", code], check=True, timeout=_SECONDS, capture_output=True)


def _has(python: str, module: str) -> bool:
    try:
        _found(python, module)
    except (OSError, subprocess.SubprocessError):
        return False
    return True
