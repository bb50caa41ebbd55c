"""A real studio, started the way users start it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

from benchmarks.studio import Studio, running_studio


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """One studio for all tests; what a test stops or kills in it must be back when the test ends."""
    with running_studio(tmp_path_factory.mktemp("studio")) as started:
        yield started


def eventually(condition: Callable[[], object], seconds: float) -> bool:
    """Wait until a condition holds; tell whether it came to hold in time."""
    deadline = monotonic() + seconds
    while not condition():
        if monotonic() > deadline:
            return False
        sleep(0.05)
    return True


def logs(data_dir: Path) -> str:
    """All that a studio's processes have logged, for the message of a failed test."""
    return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in sorted(data_dir.glob("logs/*.log")))
