import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from peft_studio.cli import OF_THE_SERVER, SECTIONS, application
from peft_studio.ports import free_port


def peft_studio(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "peft_studio.cli", *words],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=60,
    )


def installed(folder: Path, entry_points: str) -> str:
    """Lay out a package that has entry points; return what PYTHONPATH must be to have it installed."""
    metadata = folder / "other-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[peft_studio.commands]\n{entry_points}\n")
    return str(folder)


def test_help_lists_the_commands() -> None:
    shown = peft_studio("--help").stdout
    assert "up" in shown
    assert "keys" in shown


def test_a_command_whose_code_is_not_installed_says_so_in_one_line(tmp_path: Path) -> None:
    tried = peft_studio("ghost", "--port", "1", PYTHONPATH=installed(tmp_path, "ghost = no_such_module:command"))
    assert tried.returncode == 2
    assert tried.stderr.startswith("peft-studio: `peft-studio ghost` needs the server")
    assert tried.stderr.count("\n") == 1


def test_an_error_of_ours_is_one_line_and_a_code(tmp_path: Path) -> None:
    code = "from peft_studio.errors import InternalError\ndef fail():\n    raise InternalError('The lot fell over.')\n"
    (tmp_path / "falling.py").write_text(code)
    tried = peft_studio("fall", PYTHONPATH=installed(tmp_path, "fall = falling:fail"))
    assert (tried.returncode, tried.stderr) == (1, "peft-studio: The lot fell over.\n")


@pytest.mark.parametrize("words", [("list",), ("create", "me"), ("revoke", "me")])
def test_keys_want_a_running_studio(tmp_path: Path, words: tuple[str, ...]) -> None:
    tried = peft_studio("keys", *words, "--data-dir", str(tmp_path))
    assert tried.returncode == 2
    assert tried.stdout == ""
    assert tried.stderr == (
        f"peft-studio: No studio runs on {tmp_path}: start it with `peft-studio up`, or name another --data-dir.\n"
    )


def test_a_bad_setting_in_the_environment_is_named(tmp_path: Path) -> None:
    tried = peft_studio("up", PEFT_STUDIO_DATA_DIR=str(tmp_path), PEFT_STUDIO_PORT="many")
    assert tried.returncode == 2
    assert tried.stderr.startswith("peft-studio: PEFT_STUDIO_PORT is not valid")
    assert tried.stderr.count("\n") == 1


def test_a_directory_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    tried = peft_studio("up", "--data-dir", str(tmp_path / "file" / "data"))
    assert tried.returncode == 2
    assert tried.stderr == (
        f"peft-studio: Cannot write to {tmp_path}/file/data (Not a directory):"
        " choose another directory with --data-dir.\n"
    )


def test_an_unreachable_database_is_named_without_its_password(tmp_path: Path) -> None:
    url = "postgresql://me:opensesame@127.0.0.1:1/studio"
    ports = ("--port", str(free_port()), "--prefect-port", str(free_port()))
    tried = peft_studio("up", "--data-dir", str(tmp_path), *ports, PEFT_STUDIO_DATABASE_URL=url)
    assert tried.returncode == 2
    assert "The database 127.0.0.1/studio cannot be reached" in tried.stderr
    assert "opensesame" not in tried.stderr
    assert tried.stderr.count("\n") == 1


def test_what_help_says_of_a_command_is_what_the_command_says_of_itself() -> None:
    for name, said in (SECTIONS | OF_THE_SERVER).items():
        shown = CliRunner().invoke(application(name), [name, "--help"], env={"COLUMNS": "200"}).output
        assert said in " ".join(shown.split()), name
