"""The command line as a process of its own, against the real API on loopback."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from peft_studio.events import Failure, Metrics, Status
from peft_studio.jobs import JobStatus, Phase
from peft_studio.machines import MachineStatus
from peft_studio.ports import free_port
from tests.integration.api.studio_in_memory import CONFIG, receipt
from tests.integration.clients.served import Served, eventful

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home with nothing in it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PEFT_STUDIO_", "XDG_"))}
    return kept | {"HOME": str(tmp_path), "COLUMNS": "200", "TERM": "dumb"}


@pytest.fixture
def run(api: Served, environment: dict[str, str]) -> Run:
    """Run a command that knows the studio and a key from its environment."""

    def ran(*words: str, stdin: str = "", key: str = "writes", url: str = "", **more: str) -> Run:
        known = {"PEFT_STUDIO_URL": url or api.url, "PEFT_STUDIO_API_KEY": key}
        return subprocess.run(  # pyright: ignore
            [sys.executable, "-m", "peft_studio.cli", *words],
            input=stdin,
            capture_output=True,
            text=True,
            env=environment | known | more,
            timeout=60,
        )

    return ran  # pyright: ignore


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(CONFIG | {"project_name": "größer"}, allow_unicode=True))
    return path


def test_a_job_is_submitted_from_a_file_with_changes(run: Run, api: Served, job_file: Path) -> None:
    done = run("jobs", "submit", str(job_file), "--set", "rank=4", "--set", "learning_rate=1e-4", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    config = api.jobs.jobs[json.loads(done.stdout)["job_id"]].config
    assert (config.rank, config.learning_rate, config.project_name) == (4, 1e-4, "größer")


def test_the_body_of_a_request_is_a_job_file_too_and_people_get_the_bare_id(run: Run, api: Served) -> None:
    done = run("jobs", "submit", "-", stdin=json.dumps({"config": CONFIG}))
    assert done.returncode == 0
    assert done.stdout.strip() in api.jobs.jobs


@pytest.mark.parametrize(
    ("status", "code"), [(JobStatus.COMPLETED, 0), (JobStatus.FAILED, 3), (JobStatus.CANCELLED, 4)]
)
def test_following_ends_with_the_jobs_code(run: Run, api: Served, status: JobStatus, code: int) -> None:
    job = api.jobs.add(status=JobStatus.RUNNING)
    api.jobs.say(Status(job_id=job.job_id, status=JobStatus.RUNNING, phase=Phase.TRAINING))
    api.jobs.say(Metrics(job_id=job.job_id, metrics={"step": 1, "loss": 0.5, "total_steps": 2}))
    api.jobs.say(Failure(job_id=job.job_id, error="Bad [luck]", details="Try again."))
    api.jobs.say(Status(job_id=job.job_id, status=status, phase=Phase.DONE))
    told = run("jobs", "follow", job.job_id, "--json")
    assert told.returncode == code
    assert [json.loads(line)["type"] for line in told.stdout.splitlines()] == ["status", "metrics", "error", "status"]
    shown = run("jobs", "follow", job.job_id)
    assert (shown.returncode, shown.stdout) == (code, "")
    assert "Bad [luck] Try again." in shown.stderr


def test_ctrl_c_leaves_the_job_running_and_says_so(api: Served, environment: dict[str, str]) -> None:
    job = api.jobs.add(status=JobStatus.RUNNING)
    api.jobs.say(Status(job_id=job.job_id, status=JobStatus.RUNNING, phase=Phase.TRAINING))
    words = [sys.executable, "-m", "peft_studio.cli", "jobs", "follow", job.job_id, "--json"]
    known = {"PEFT_STUDIO_URL": api.url, "PEFT_STUDIO_API_KEY": "writes"}
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment | known
    ) as following:
        assert following.stdout and "training" in following.stdout.readline()
        following.send_signal(signal.SIGINT)
        _, said = following.communicate(timeout=30)
    assert following.returncode == 130
    assert said == f"No longer watching. The job goes on: peft-studio jobs follow {job.job_id}\n"
    assert api.jobs.jobs[job.job_id].status is JobStatus.RUNNING


def test_people_get_tables_and_scripts_get_the_answer(run: Run, api: Served) -> None:
    job = eventful(api.jobs)
    shown = run("jobs", "list", "--status", "completed").stdout
    assert shown.split()[:2] == ["id", "status"] and job.job_id in shown
    listed = json.loads(run("jobs", "list", "--status", "completed", "--limit", "1", "--json").stdout)
    assert len(listed["jobs"]) == 1 and listed["total"] >= 1
    assert json.loads(run("jobs", "show", job.job_id, "--json").stdout)["job_id"] == job.job_id
    assert "base model  org/model" in run("jobs", "show", job.job_id).stdout
    assert json.loads(run("jobs", "logs", job.job_id, "--json").stdout)[0]["message"].endswith("完成")
    machines = json.loads(run("resources", "list", "--json").stdout)["resources"]
    assert machines[0]["id"] in run("resources", "list").stdout


def test_a_stranded_machine_is_listed_with_the_reason_and_settled_by_an_admin(run: Run, api: Served) -> None:
    stranded = receipt(1, MachineStatus.STRANDED, "runpod").model_copy(update={"reason": "See to it there."})
    api.machines.kept.append(stranded)
    assert f"{stranded.name} at runpod: See to it there." in run("machines", "list", "--active").stderr
    settle = "machines", "settle", stranded.name, "--cost"
    assert run(*settle, "1.5").returncode == 5
    assert run(*settle, "1.5", key="rules").stdout.strip() == f"{stranded.name} is settled: $1.50."
    assert run(*settle, "1.5", key="rules").returncode == 2  # it is settled
    [shown] = json.loads(run("machines", "list", "--json").stdout)["machines"]
    assert (shown["status"], shown["settled_by"]) == ("gone", "rules")


def test_a_budget_is_set_seen_and_removed(run: Run) -> None:
    assert run("budgets", "set", "project", "support", "50", key="rules").returncode == 0
    assert "$50.00" in run("budgets", "set", "project", "other", "0.5", key="rules").stdout
    shown = json.loads(run("budgets", "list", "--json").stdout)["budgets"]
    assert {one["id"]: one["monthly_usd"] for one in shown} == {"support": 50, "other": 0.5}
    run("budgets", "remove", "project", "other", key="rules")
    assert "other" not in run("budgets", "remove", "project", "support", key="rules").stdout
    assert run("budgets", "remove", "project", "support", key="rules").returncode == 2
    assert run("budgets", "set", "project", "support", "0", key="rules").returncode == 2
    assert run("budgets", "set", "project", "support", "5").returncode == 5


@pytest.mark.parametrize(
    ("words", "more", "code", "said"),
    [
        (("jobs", "show", "job_0"), {}, 2, "peft-studio: There is no job 'job_0'.\n"),
        (("jobs", "show", "job_0"), {"key": "unknown"}, 5, "peft-studio: The API key is not valid"),
        (("jobs", "cancel", "job_0"), {"key": "reads"}, 5, "peft-studio: This API key may only read"),
        (("jobs", "submit", "/nowhere.yaml"), {}, 2, "peft-studio: The job file /nowhere.yaml cannot be read"),
        (("jobs", "submit", "-"), {"stdin": "a: [1"}, 2, "  FILE: line 1: "),
        (("jobs", "submit", "-"), {"stdin": json.dumps(CONFIG | {"rank": 0})}, 2, "  rank: "),
        (("jobs", "submit", "-", "--set", "rank"), {"stdin": json.dumps(CONFIG)}, 2, "  --set: Must be field=value"),
        (("jobs", "list"), {"url": "http://127.0.0.1:9"}, 6, "peft-studio: The studio at http://127.0.0.1:9 cannot"),
        (("jobs", "list"), {"url": "ftp://studio"}, 2, "  --url: Must begin with http(s)://"),
        (("jobs", "list", "--limit", "0"), {}, 2, "Invalid value for '--limit'"),
        (("platforms", "connect", "runpod"), {}, 2, "peft-studio: No api_key was given"),
    ],
)
def test_an_error_is_told_in_words_with_its_field_and_a_code(
    run: Run, words: tuple[str, ...], more: dict[str, str], code: int, said: str
) -> None:
    done = run(*words, **more)
    assert said in done.stderr
    assert (done.returncode, done.stdout) == (code, "")
    assert "Traceback" not in done.stderr


def test_a_key_in_a_file_goes_before_the_environment(run: Run, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("writes\n")
    assert run("jobs", "list", "--key-file", str(tmp_path / "key"), key="unknown").returncode == 0
    (tmp_path / "key").write_text("two words\n")
    assert run("jobs", "list", "--key-file", str(tmp_path / "key")).returncode == 2


def test_a_login_is_checked_and_remembered_for_its_address_alone(run: Run, api: Served, tmp_path: Path) -> None:
    nothing = {"PEFT_STUDIO_API_KEY": "", "PEFT_STUDIO_URL": ""}
    assert run("login", "--url", api.url, stdin="unknown\n", **nothing).returncode == 5
    assert not (tmp_path / ".config").exists()
    assert run("login", "--url", f"{api.url}/", stdin="writes\n", **nothing).returncode == 0
    file = tmp_path / ".config" / "peft-studio"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert run("jobs", "list", **nothing).returncode == 0
    elsewhere = run("jobs", "list", "--url", f"http://127.0.0.1:{free_port()}", **nothing)
    assert elsewhere.returncode == 5
    assert "peft-studio login" in elsewhere.stderr


def test_without_any_studio_the_ways_to_name_one_are_told(run: Run) -> None:
    done = run("jobs", "list", PEFT_STUDIO_API_KEY="", PEFT_STUDIO_URL="")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "peft-studio: No studio is known.")
    assert "peft-studio up" in done.stderr


def test_help_answers_without_importing_what_it_does_not_need(run: Run) -> None:
    assert "Exit codes: 0 done" in run("--help").stdout
    code = "import sys; from peft_studio.cli import application; application(None);"
    heavy = "{'httpx', 'websockets', 'pydantic', 'infra', 'prefect'}"
    loaded = subprocess.run(
        [sys.executable, "-c", f"{code} print(sorted({heavy} & sys.modules.keys()))"], capture_output=True, text=True
    )
    assert loaded.stdout.strip() == "[]"


@pytest.mark.parametrize(("typed", "offered"), [("peft-studio jo", "jobs"), ("peft-studio jobs su", "submit")])
def test_a_shell_completes_commands_and_theirs(environment: dict[str, str], typed: str, offered: str) -> None:
    asked = {"_PEFT_STUDIO_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": typed}
    code = "import sys; from peft_studio.cli import main; sys.argv = ['peft-studio']; main()"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, env=environment | asked, timeout=60)
    assert f'"{offered}"' in done.stdout


def test_a_table_has_a_line_for_each_row_however_narrow_the_terminal_is(
    run: Run, api: Served, environment: dict[str, str]
) -> None:
    job = api.jobs.add(status=JobStatus.RUNNING, metrics={"loss": 0.5})
    lines = run("jobs", "list", "--limit", "100", COLUMNS="40").stdout.splitlines()
    assert lines[0].split() == [*["id", "status", "phase", "progress", "loss"], "base", "model", "project", "created"]
    assert lines[1].split()[:2] == [job.job_id, "running"] and "org/model" in lines[1]
    assert len(lines) == 1 + len(api.jobs.jobs)
    assert not any("…" in line for line in lines)


def test_a_file_that_cannot_be_read_is_named_once_with_the_reason(run: Run, tmp_path: Path) -> None:
    missing, binary = tmp_path / "none.yaml", tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe")
    for file, reason in ((missing, "No such file or directory"), (binary, "it is no text in UTF-8")):
        tried = run("jobs", "submit", str(file))
        assert (tried.returncode, tried.stdout) == (2, "")
        assert tried.stderr == f"peft-studio: The job file {file} cannot be read: {reason}.\n"
    tried = run("jobs", "list", "--key-file", str(missing))
    assert tried.stderr == f"peft-studio: The key file {missing} cannot be read: No such file or directory.\n"
