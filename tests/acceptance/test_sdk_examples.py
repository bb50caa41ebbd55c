"""The two clients of the API's document, as they are written there, against a live studio."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.studio import ROOT, Studio
from tests.acceptance.jobs import follow, job, short_job
from tests.node import NODE

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
Run = Callable[[str, dict[str, Any]], "subprocess.CompletedProcess[str]"]
TELL = {
    "python": "import json\nprint(json.dumps(status))\n",
    "javascript": "console.log(JSON.stringify(status));\n",
}


@pytest.fixture(params=["python", "javascript"])
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Run the example with a key and a configuration in place of those it leaves open, and nothing else changed."""
    language: str = request.param
    program = sys.executable if language == "python" else NODE
    text = (ROOT / "tests" / "contract" / "sdk" / f"{language}.txt").read_text()
    file = tmp_path / ("example.py" if language == "python" else "example.mjs")

    def run(key: str, config: dict[str, Any]) -> "subprocess.CompletedProcess[str]":
        literal = repr(config) if language == "python" else json.dumps(config)
        usage = text.replace("your_api_key", key).replace("{...}", literal)
        file.write_text(usage + TELL[language])
        return subprocess.run([program, str(file)], capture_output=True, text=True, timeout=100)

    return run


@pytest.mark.usefixtures("at_the_documents_address")
def test_the_documents_client_submits_a_job_and_sees_it(studio: Studio, example: Run) -> None:
    config = short_job(max_steps=1, project_name="sdk")
    done = example(studio.key, config)
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    assert re.fullmatch("job_[0-9a-f]{32}", status["job_id"])
    sent = {name: value for name, value in config.items() if value is not None}
    assert status["config"].items() >= sent.items()
    follow(studio, status["job_id"])
    assert job(studio, status["job_id"]).status == "completed"


@pytest.mark.usefixtures("at_the_documents_address")
def test_the_documents_client_fails_as_it_is_written_to_when_a_job_is_refused(studio: Studio, example: Run) -> None:
    done = example(studio.key, short_job(rank=0))
    assert done.returncode != 0
    assert "400 Client Error" in done.stderr or "Job creation failed" in done.stderr
