"""The command line as whoever started the studio uses it: without an address, and with a key of its own."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.studio import Studio
from tests.acceptance.command_line import on_this_machine, peft_studio
from tests.acceptance.conftest import eventually

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]


@pytest.fixture
def own_key(studio: Studio) -> Path:
    """The file of the command line's own key, which is not there yet."""
    file = studio.data_dir / "secrets" / "command-line"
    file.unlink(missing_ok=True)
    return file


def live_keys(studio: Studio) -> dict[str, str]:
    """The command line's own keys that hold: their ids by name."""
    with studio.client() as client:
        listed = client.list_keys(limit=100).keys
    return {key.name: key.id for key in listed if key.name.startswith("command-line-") and not key.revoked_at}


def test_the_first_command_gets_itself_a_key_and_all_others_use_it(studio: Studio, own_key: Path) -> None:
    before = live_keys(studio)
    listed = on_this_machine(studio, "jobs", "list", "--json")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "jobs" in json.loads(listed.stdout)
    assert stat.S_IMODE(own_key.stat().st_mode) == 0o600
    assert stat.S_IMODE(own_key.parent.stat().st_mode) & 0o066 == 0
    key = own_key.read_text()
    assert on_this_machine(studio, "resources", "list").returncode == 0
    assert own_key.read_text() == key
    assert len(live_keys(studio).keys() - before.keys()) == 1


def test_first_commands_at_the_same_time_get_one_key(studio: Studio, own_key: Path) -> None:
    before = live_keys(studio)
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda _: on_this_machine(studio, "jobs", "list"), range(3)))
    assert [one.returncode for one in done] == [0, 0, 0], done
    assert len(live_keys(studio).keys() - before.keys()) == 1


def test_a_revoked_key_of_its_own_is_told_and_replaced_by_the_next_command(studio: Studio, own_key: Path) -> None:
    before = live_keys(studio)
    assert on_this_machine(studio, "jobs", "list").returncode == 0
    key = own_key.read_text()
    (name,) = live_keys(studio).keys() - before.keys()
    assert peft_studio("keys", "revoke", name, "--data-dir", studio.data_dir).returncode == 0
    assert eventually(lambda: on_this_machine(studio, "jobs", "list").returncode == 5 or not own_key.exists(), 10)
    assert not own_key.exists()
    again = on_this_machine(studio, "jobs", "list")
    assert (again.returncode, again.stderr) == (0, "")
    assert own_key.read_text() != key


def test_a_revoked_key_of_its_own_says_what_to_do(studio: Studio, own_key: Path) -> None:
    own_key.write_text("ps_" + "x" * 43)
    own_key.chmod(0o600)
    refused = on_this_machine(studio, "jobs", "list")
    assert (refused.returncode, refused.stdout) == (5, "")
    assert refused.stderr == (
        "peft-studio: This command line's own key to the studio does not hold any more.\n"
        "  Run the command again: it gets a new key.\n"
    )


def test_a_key_that_was_given_is_never_dropped(studio: Studio, own_key: Path, tmp_path: Path) -> None:
    assert on_this_machine(studio, "jobs", "list").returncode == 0
    wrong = tmp_path / "key"
    wrong.write_text("ps_" + "x" * 43)
    refused = on_this_machine(studio, "jobs", "list", "--key-file", wrong)
    assert refused.returncode == 5
    assert "own key" not in refused.stderr
    assert wrong.exists() and own_key.exists()
