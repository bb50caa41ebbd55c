"""A program on a leash ends with all that it has started, whoever of the three ends first."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

LEASH = [sys.executable, "-m", "infra.serving.leash"]
# A server that leaves its engine behind when it is killed; the engine hears of no polite request.
FAMILY = ["sh", "-c", "trap 'exit 7' TERM; (trap '' TERM; echo $$ ready; sleep 60; sleep 60) & wait"]
WAIT_SECONDS = 20


def all_end(processes: list[psutil.Process]) -> bool:
    deadline = time.monotonic() + WAIT_SECONDS
    while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def kill_the_server(leash: psutil.Process) -> None:
    leash.children()[0].kill()


def kill_the_parent(leash: psutil.Process) -> None:
    parent = leash.parent()
    assert parent is not None
    parent.kill()


@pytest.mark.parametrize("ending", [psutil.Process.terminate, kill_the_server, kill_the_parent])
def test_nothing_is_left(ending: Callable[[psutil.Process], None]) -> None:
    waits = f"import subprocess; subprocess.run({[*LEASH, *FAMILY]!r})"
    parent = subprocess.Popen([sys.executable, "-c", waits], stdout=subprocess.PIPE)
    assert parent.stdout is not None and b"ready" in parent.stdout.readline()
    leash, *below = psutil.Process(parent.pid).children(recursive=True)
    assert len(below) >= 2
    ending(leash)
    assert all_end([leash, *below])
    parent.kill()
    parent.wait()
    parent.stdout.close()


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -9 $$", 128 + signal.SIGKILL)])
def test_the_exit_code_is_the_programs(script: str, code: int) -> None:
    assert subprocess.run([*LEASH, "sh", "-c", script], check=False).returncode == code


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = subprocess.run([*LEASH, str(tmp_path / "vllm")], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "vllm cannot be started: No such file" in done.stderr
