"""Warm processes: the same as python -m, for the program, for its caller, and when either dies."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.waiting import until

PROGRAM = """
import os, signal, sys, time
if sys.argv[1] == "catch": signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))
print(sys.argv[1:], os.environ.get("COLOUR"), os.getcwd(), "json" in sys.modules, os.nice(0), os.getpid(), flush=True)
print("to stderr", file=sys.stderr)
match sys.argv[1]:
    case "exit": sys.exit(int(sys.argv[2]))
    case "fail": raise ValueError("broken")
    case "echo": print(sys.stdin.read())
    case "catch" | "sleep": time.sleep(60)
"""


@pytest.fixture(scope="module")
def socket_path() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "warm.sock"
        server = subprocess.Popen([sys.executable, "-m", "infra.warm", "serve", str(path), "json"])
        until(path.exists)
        yield str(path)
        server.kill()
        server.wait()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


@pytest.fixture(params=["warm", "cold"])
def environment(request: pytest.FixtureRequest, socket_path: str) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    where = socket_path if request.param == "warm" else "/nowhere"
    return os.environ | {"PEFT_STUDIO_WARM_SOCKET": where, "COLOUR": "blue", "PYTHONPATH": root}


def start(folder: Path, environment: dict[str, str], *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        ["nice", "-n", "3", sys.executable, "-m", "infra.warm", "run", "program", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def child_of(process: "subprocess.Popen[str]") -> psutil.Process:
    """The process that really runs the program: it prints its own pid."""
    assert process.stdout is not None
    return psutil.Process(int(process.stdout.readline().split()[-1]))


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_arguments_environment_directory_niceness_and_streams_reach_the_program(
    program: Path, environment: dict[str, str]
) -> None:
    process = start(program, environment, "echo", "two words")
    out, err = process.communicate("from stdin")
    assert process.returncode == 0
    assert f"['echo', 'two words'] blue {program}" in out
    assert out.splitlines()[0].split()[-2] == str(os.nice(0) + 3)
    assert "from stdin" in out
    assert "to stderr" in err


@pytest.mark.parametrize(("arguments", "code"), [(["exit", "0"], 0), (["exit", "64"], 64), (["fail"], 1)])
def test_the_exit_code_is_the_programs(
    program: Path, environment: dict[str, str], arguments: list[str], code: int
) -> None:
    process = start(program, environment, *arguments)
    _, err = process.communicate()
    assert process.returncode == code
    assert ("ValueError: broken" in err) == (arguments == ["fail"])


def test_a_signal_to_the_caller_reaches_the_program(program: Path, environment: dict[str, str]) -> None:
    process = start(program, environment, "catch")
    child_of(process)
    process.terminate()
    assert process.wait(10) == 42
    process.communicate()


def test_a_program_that_is_killed_is_reported_as_killed(program: Path, environment: dict[str, str]) -> None:
    process = start(program, environment, "sleep")
    child_of(process).kill()
    assert process.wait(10) in (-signal.SIGKILL, 128 + signal.SIGKILL)
    process.communicate()


def test_a_program_is_listed_under_its_own_name(program: Path, environment: dict[str, str]) -> None:
    process = start(program, environment, "sleep")
    assert " ".join(child_of(process).cmdline()).strip().endswith("-m program sleep")
    process.kill()
    process.communicate()


def test_a_program_ends_with_its_caller(program: Path, environment: dict[str, str]) -> None:
    process = start(program, environment, "sleep")
    child = child_of(process)
    process.kill()
    until(lambda: is_gone(child))
    process.communicate()


def test_a_program_that_is_asked_for_while_the_server_still_imports_waits_for_it(program: Path) -> None:
    """Ten jobs that are taken up again at once must not import ten times what one process is importing already."""
    gate = program / "gate"
    (program / "slow.py").write_text(f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.02)")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "warm.sock"
        environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parents[2]}:{program}"}
        server = subprocess.Popen([sys.executable, "-m", "infra.warm", "serve", str(path), "slow"], env=environment)
        until(path.exists)
        process = start(program, environment | {"PEFT_STUDIO_WARM_SOCKET": str(path)}, "exit", "0")
        until(lambda: psutil.Process(process.pid).net_connections("unix") != [])
        gate.touch()
        out, _ = process.communicate()
        server.kill()
        server.wait()
    has_what_the_server_has = out.split()[-3]
    assert (process.returncode, has_what_the_server_has) == (0, "True")
