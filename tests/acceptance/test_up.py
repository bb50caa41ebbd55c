import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from benchmarks.studio import Studio, running_studio
from peft_studio.ports import free_port
from tests.acceptance.command_line import on_this_machine, peft_studio
from tests.acceptance.conftest import eventually, logs
from tests.acceptance.jobs import is_ready, part

# Generous: the machine may be busy with something else.
READY_SECONDS = 60
pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]
PROGRAMS = {"postgres": "bin/postgres", "prefect": "prefect.server", "worker": "infra.worker", "api": "api.app"}


def process_of(studio: Studio, name: str) -> psutil.Process | None:
    """The supervisor's own child that runs a program."""
    try:
        return part(studio, PROGRAMS[name])
    except StopIteration:
        return None


def status_with(studio: Studio, key: str) -> int:
    return httpx.get(f"{studio.url}/api/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code


def everything_about(data_dir: Path) -> list[psutil.Process]:
    """All processes that have to do with a data directory, by command line, environment or working directory."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            said = [*process.cmdline(), *process.environ().values(), process.cwd()]
            if process.pid != os.getpid() and any(str(data_dir) in text for text in said):
                found.append(process)
        except psutil.Error:
            continue
    return found


def about_itself(studio: Studio) -> dict[str, str]:
    return json.loads((studio.data_dir / "studio.json").read_text())


def test_a_studio_answers_its_probes(studio: Studio) -> None:
    assert httpx.get(f"{studio.url}/healthz").status_code == 200
    assert httpx.get(f"{studio.url}/readyz").status_code == 200


def test_prefect_serves_its_ui_and_opens_its_api_to_those_who_know_the_password(studio: Studio) -> None:
    about = about_itself(studio)
    ui = about["prefect_api_url"].removesuffix("/api")
    assert "<html" in httpx.get(f"{ui}/v2/", headers={"Accept": "text/html"}).text
    shown = httpx.get(f"{ui}/ui-settings").json()
    assert (shown["api_url"], shown["auth"]) == (about["prefect_api_url"], "BASIC")
    version = f"{about['prefect_api_url']}/admin/version"
    assert httpx.get(version).status_code == 401
    user, _, password = Path(about["prefect_auth_file"]).read_text().partition(":")
    assert httpx.get(version, auth=(user, password)).status_code == 200


def test_prefects_own_commands_work_with_what_env_prints(studio: Studio) -> None:
    exports = peft_studio("env", "--data-dir", studio.data_dir).stdout
    command = f"{exports}\n{sys.executable} -m prefect deployment ls"
    listed = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert "finetune/default" in listed.stdout


def test_secrets_are_in_files_of_the_owner_and_nowhere_else(studio: Studio) -> None:
    on_this_machine(studio, "jobs", "list")
    files = list((studio.data_dir / "secrets").iterdir())
    assert sorted(file.name for file in files) == ["command-line", "database", "encryption", "prefect"]
    for file in [*files, studio.data_dir / "studio.json"]:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secrets = [file.read_text() for file in files]
    family = [child.cmdline() for child in psutil.Process(studio.process.pid).children(recursive=True)]
    written = "\n".join(path.read_text() for path in studio.data_dir.glob("logs/*"))
    for secret in secrets:
        assert secret not in str(family)
        assert secret not in written


def test_only_the_prefect_server_and_the_api_know_the_databases_password(studio: Studio) -> None:
    password = (studio.data_dir / "secrets" / "database").read_text()
    for process in psutil.Process(studio.process.pid).children(recursive=True):
        command = " ".join(process.cmdline())
        asks_it = PROGRAMS["prefect"] in command or PROGRAMS["api"] in command
        assert (password in str(process.environ())) == asks_it, command
        assert password not in command


def test_a_second_studio_on_the_same_directory_is_refused(studio: Studio) -> None:
    tried = peft_studio("up", "--data-dir", studio.data_dir)
    assert tried.returncode == 2
    assert tried.stderr == (
        f"peft-studio: A studio runs on {studio.data_dir} already (process {studio.process.pid}):"
        " stop it, or choose another --data-dir.\n"
    )


@pytest.mark.parametrize("option", ["--port", "--prefect-port"])
def test_a_busy_port_is_refused(tmp_path: Path, option: str) -> None:
    ports = {"--port": free_port(), "--prefect-port": free_port()}
    with socket.create_server(("127.0.0.1", ports[option])):
        words = [word for pair in ports.items() for word in pair]
        tried = peft_studio("up", "--data-dir", tmp_path, *words)
    assert tried.returncode == 2
    assert tried.stderr == (
        f"peft-studio: Port {ports[option]} is in use: choose another with {option}, or stop what listens there.\n"
    )
    assert not (tmp_path / "postgres").exists()


def test_a_new_key_is_printed_alone_and_works_at_once(studio: Studio) -> None:
    made = peft_studio("keys", "create", "alone", "--role", "read", "--data-dir", studio.data_dir)
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("ps_")
    assert len(made.stdout) == len("ps_") + 43 + 1
    assert made.stdout.strip() not in made.stderr
    assert status_with(studio, made.stdout.strip()) == 200


def test_a_revoked_key_stops_working_within_seconds_and_stays_on_the_list(studio: Studio) -> None:
    key = studio.new_key("short-lived")
    assert status_with(studio, key) == 200
    assert peft_studio("keys", "revoke", "short-lived", "--data-dir", studio.data_dir).returncode == 0
    assert eventually(lambda: status_with(studio, key) == 401, 8)
    listed = json.loads(peft_studio("keys", "list", "--json", "--data-dir", studio.data_dir).stdout)
    (entry,) = (entry for entry in listed if entry["name"] == "short-lived")
    assert entry["revoked_at"]
    assert "sha256" not in entry


def test_two_live_keys_never_have_the_same_name(studio: Studio) -> None:
    studio.new_key("twin")
    again = peft_studio("keys", "create", "twin", "--data-dir", studio.data_dir)
    assert (again.returncode, again.stdout) == (2, "")
    assert "There is a key named 'twin' already" in again.stderr


def test_a_key_that_is_not_there_cannot_be_revoked(studio: Studio) -> None:
    tried = peft_studio("keys", "revoke", "nobody", "--data-dir", studio.data_dir)
    assert tried.returncode == 2
    assert "There is no live key 'nobody'" in tried.stderr


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_what_is_killed_comes_back(studio: Studio, name: str) -> None:
    before = process_of(studio, name)
    assert before
    before.kill()
    assert eventually(lambda: (after := process_of(studio, name)) and after.pid != before.pid, 5)
    assert eventually(lambda: is_ready(studio), READY_SECONDS), logs(studio.data_dir)
    assert status_with(studio, studio.key) == 200


def test_a_killed_studio_leaves_nothing_behind_and_the_next_one_recovers(
    used_data_dir: Callable[[str], Path],
) -> None:
    data_dir = used_data_dir("killed")
    with running_studio(data_dir) as first:
        first.process.kill()
        assert eventually(lambda: not everything_about(data_dir), 10), everything_about(data_dir)
        key = first.key
    assert (data_dir / "studio.json").exists()
    assert (data_dir / "worker.ready").exists()
    reuse_the_number_of(data_dir / "postgres" / "postmaster.pid")
    with running_studio(data_dir) as second:
        assert status_with(second, key) == 200
        began = time.monotonic()
        second.process.send_signal(signal.SIGTERM)
        assert second.process.wait(timeout=10) == 0
        assert everything_about(data_dir) == []
        assert time.monotonic() - began < 10
        assert not (data_dir / "studio.json").exists()


def reuse_the_number_of(postmaster: Path) -> None:
    """Make a file left behind by a killed PostgreSQL name a process that lives, but is another one."""
    text = "0\n/gone\n0\n5432\n\n\n0 0\nready\n"
    postmaster.write_text(f"{os.getpid()}{text[1:]}")
