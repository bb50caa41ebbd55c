"""A real studio, started the way users start it."""

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
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
def used_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """
    Give copies of a data directory in which a studio was once started, and stopped: named by what they are for.

    The next start has neither a database to make nor a machine to measure. The one first start is for all processes
    that run tests.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    used = shared / "used"
    with locked(shared / "used.lock"):
        if not used.exists():
            with running_studio(shared / "first"):
                pass
            (shared / "first").rename(used)

    def copy(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name) / "data"
        subprocess.run(["cp", "-a", used, folder], check=True)  # with its owners: the database's is another user
        return folder

    return copy


@pytest.fixture(scope="session")
def studio(used_data_dir: Callable[[str], Path]) -> Iterator[Studio]:
    """One studio for all tests; what a test stops or kills in it must be back when the test ends."""
    with running_studio(used_data_dir("studio")) as started:
        yield started


@pytest.fixture
def at_the_documents_address(studio: Studio) -> Iterator[None]:
    """Have the port that examples name lead to the studio, whose own port is another one; one test after the other."""
    with ExitStack() as stack:
        stack.enter_context(locked(Path(tempfile.gettempdir()) / f"peft-studio-port-{PORT}.lock"))
        try:
            stack.enter_context(forwarded(PORT, urlsplit(studio.url).port or 0))
        except OSError as error:
            pytest.skip(f"port {PORT} of this machine is taken: {error}")
        yield


@contextmanager
def locked(file: Path) -> Generator[None]:
    """Hold a lock against other processes that run tests."""
    with file.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
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
