import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.acceptance.conftest import eventually

pytestmark = pytest.mark.acceptance

SUPERVISE = """
import json, os, sys
from pathlib import Path
from infra.embedded.supervisor import Program, Supervisor
from peft_studio.errors import StudioError
folder = Path(sys.argv[1])
def program(name, code, **more):
    started, ready = folder / f"{name}.started", folder / f"{name}.ready"
    begin = f"open({str(started)!r}, 'a').write(str(os.getpid()) + ' '); open({str(ready)!r}, 'w').close()"
    ready.unlink(missing_ok=True)
    code = "import os, signal, subprocess, sys, time; " + begin + "\\n" + code
    return Program(name, [sys.executable, "-c", code], dict(os.environ), ready.exists, **more)
programs = [program(name, **more) for name, more in json.loads(sys.argv[2]).items()]
try:
    Supervisor(programs, folder / "logs").run(lambda: print("ready", flush=True))
except StudioError as error:
    sys.exit(error.message)
"""
WAIT = "time.sleep(600)"


@contextmanager
def supervised(folder: Path, **programs: dict[str, object]) -> Generator["subprocess.Popen[str]"]:
    """Run a supervisor over stand-ins, each a few lines of Python; stop it in the end."""
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, str(folder), json.dumps(programs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield supervisor
    finally:
        supervisor.send_signal(signal.SIGTERM)
        supervisor.communicate(timeout=30)


def wait_until_ready(supervisor: "subprocess.Popen[str]") -> None:
    assert supervisor.stdout
    assert supervisor.stdout.readline() == "ready\n"


def starts(folder: Path, name: str) -> list[int]:
    """The process ids that a stand-in has had, oldest first."""
    path = folder / f"{name}.started"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_niceness_counts_between_programs_and_a_terminals_ctrl_c_reaches_none_of_them(tmp_path: Path) -> None:
    with supervised(tmp_path, one={"code": WAIT}) as supervisor:
        wait_until_ready(supervisor)
        (pid,) = starts(tmp_path, "one")
        assert os.getsid(pid) == supervisor.pid  # Linux shares processors between sessions, whatever their niceness
        assert os.getpgid(pid) == pid


def test_a_program_waits_for_those_it_stands_on(tmp_path: Path) -> None:
    with supervised(tmp_path, below={"code": WAIT}, above={"code": WAIT, "after": ["below"]}) as supervisor:
        wait_until_ready(supervisor)
        below, above = (psutil.Process(starts(tmp_path, name)[0]) for name in ("below", "above"))
        assert below.create_time() < above.create_time()


def test_what_is_killed_is_started_again(tmp_path: Path) -> None:
    with supervised(tmp_path, one={"code": WAIT}, two={"code": WAIT}) as supervisor:
        wait_until_ready(supervisor)
        os.kill(starts(tmp_path, "one")[0], signal.SIGKILL)
        assert eventually(lambda: len(starts(tmp_path, "one")) == 2, 5)
        assert len(starts(tmp_path, "two")) == 1


def test_what_dies_again_and_again_ends_everything_and_its_log_is_named(tmp_path: Path) -> None:
    with supervised(tmp_path, well={"code": WAIT}, ill={"code": "sys.exit(7)"}) as supervisor:
        _, said = supervisor.communicate(timeout=60)
    assert supervisor.returncode == 1
    assert f"ill ended with code 7, for the 6th time within a minute; read {tmp_path}/logs/ill.log" in said
    assert len(starts(tmp_path, "ill")) == 6
    assert is_gone(starts(tmp_path, "well")[0])


def test_what_does_not_listen_is_killed_and_so_is_what_it_started(tmp_path: Path) -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    child = (
        f"p = subprocess.Popen([sys.executable, '-c', \"import signal, time; {deaf}; {WAIT}\"], start_new_session=True)"
    )
    note = f"open({str(tmp_path / 'child.started')!r}, 'w').write(str(p.pid))"
    with supervised(tmp_path, stubborn={"code": f"{deaf}; {child}; {note}; {WAIT}"}) as supervisor:
        wait_until_ready(supervisor)
        assert eventually(lambda: starts(tmp_path, "child"), 10)
    assert supervisor.returncode == 0
    assert is_gone(starts(tmp_path, "stubborn")[0])
    assert is_gone(starts(tmp_path, "child")[0])


def test_nothing_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with supervised(tmp_path, one={"code": WAIT}, two={"code": WAIT, "after": ["one"]}) as supervisor:
        wait_until_ready(supervisor)
        supervisor.kill()
        pids = starts(tmp_path, "one") + starts(tmp_path, "two")
        assert eventually(lambda: all(map(is_gone, pids)), 5)


def test_ended_processes_that_lost_their_parent_are_not_left_as_zombies(tmp_path: Path) -> None:
    orphan = "subprocess.Popen(['sh', '-c', 'sleep 0.3 & sleep 0.1'])"
    with supervised(tmp_path, parent={"code": f"{orphan}.wait(); {WAIT}"}) as supervisor:
        wait_until_ready(supervisor)
        myself = psutil.Process(supervisor.pid)
        assert eventually(lambda: len(myself.children()) == 1 and time_since(myself.children()[0]) > 1, 10)


def time_since(process: psutil.Process) -> float:
    """Seconds since a process was started."""
    return time.time() - process.create_time()
