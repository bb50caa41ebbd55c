"""A rehearsal: a studio whose vendors are simulated, and which is kept apart from one that pays."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from benchmarks.studio import ROOT, Studio, running_studio
from tests.acceptance.conftest import eventually
from tests.acceptance.jobs import follow, job, submit

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]


def up(*options: str) -> str:
    """Try to start a studio that will not start; return what it says."""
    command = [sys.executable, "-m", "peft_studio.cli", "up", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode != 0
    return done.stderr


def providers_with_resources(studio: Studio) -> set[str]:
    headers = {"Authorization": f"Bearer {studio.key}"}
    listed = httpx.get(f"{studio.url}/api/v1/resources", headers=headers, timeout=30).json()["resources"]
    return {resource["provider"] for resource in listed}


def test_a_job_is_rehearsed_on_simulated_vendors_and_never_beside_real_ones(tmp_path: Path) -> None:
    data_dir = tmp_path / "rehearsal"
    with running_studio(data_dir, "--simulate", "runpod,ssh") as studio:
        # A studio that has just started answers before its vendors have.
        assert eventually(lambda: {"local", "runpod", "ssh"} <= providers_with_resources(studio), 30)
        job_id = submit(studio, provider="runpod", max_steps=5)
        follow(studio, job_id)
        done = job(studio, job_id)
        assert done.status == "completed" and done.cost
    assert "rehearsal" in up("--data-dir", str(data_dir))
    real = tmp_path / "real"
    (real / "secrets").mkdir(parents=True)
    assert "real studio" in up("--data-dir", str(real), "--simulate", "vast")
    assert "name one or more" in up("--data-dir", str(tmp_path / "new"), "--simulate", "nobody")
    assert not (tmp_path / "new").exists()
