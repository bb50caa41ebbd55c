"""A real studio, started the way users start it."""

import fcntl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import urlsplit

import pytest

from benchmarks.studio import Studio, running_studio
from tests.acceptance.forwarding import forwarded

PORT = 8000  # the documents name it


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Try a test of real processes once more before it counts as failed: a busy machine may have held one up."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """One studio for all tests; what a test stops or kills in it must be back when the test ends."""
    with running_studio(tmp_path_factory.mktemp("studio")) as started:
        yield started


@pytest.fixture
def at_the_documents_address(studio: Studio) -> Iterator[None]:
    """Have the port that examples name lead to the studio, whose own port is another one; one test after the other."""
    with ExitStack() as stack:
        turn = stack.enter_context((Path(tempfile.gettempdir()) / f"peft-studio-port-{PORT}.lock").open("a"))
        fcntl.flock(turn, fcntl.LOCK_EX)
        try:
            stack.enter_context(forwarded(PORT, urlsplit(studio.url).port or 0))
        except OSError as error:
            pytest.skip(f"port {PORT} of this machine is taken: {error}")
        yield


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
