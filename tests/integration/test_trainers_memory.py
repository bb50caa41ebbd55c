"""How trainers that this machine starts have their memory: in whole blocks, unless somebody has chosen."""

import sys
from pathlib import Path

import pytest

from infra.providers.local import LocalAttempt
from peft_studio.run_dir import RunDir
from peft_studio.trainer import allocator
from peft_studio.trainer.allocator import VARIABLE
from tests.waiting import until

ROOT = Path(__file__).parents[2]
PROGRAM = f"import os; print('told', os.environ.get({VARIABLE!r}))"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="of glibc")


def told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a program that is started as trainers are has in its environment."""
    (folder / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{ROOT}")
    monkeypatch.delenv("PEFT_STUDIO_WARM_SOCKET", raising=False)
    run = RunDir(folder / "run")
    attempt = LocalAttempt("program", run)
    until(lambda: attempt.poll() is not None, 60)
    attempt.stop()
    return run.log.read_text()


@pytest.mark.skipif(allocator.has_gpu(), reason="a GPU has the tensors")
def test_a_trainer_of_this_machine_is_told_to_keep_its_blocks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert "told glibc.malloc.tcache_count=0" in told(tmp_path, monkeypatch)


def test_what_somebody_chose_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "glibc.malloc.tcache_count=7")
    assert "told glibc.malloc.tcache_count=7" in told(tmp_path, monkeypatch)
