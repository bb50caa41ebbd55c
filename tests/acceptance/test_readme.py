"""The programs in the documents, as they are written there, against a live studio."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.studio import ROOT, Studio
from tests.acceptance.jobs import job
from tests.node import NODE, flags, installed

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(400), pytest.mark.usefixtures("at_the_documents_address")]


def snippets(document: str, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"{document} has no {language} in it any more"
    return found


def run(*words: str) -> str:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def finished(studio: Studio, said: str) -> bool:
    """Whether a job was followed to its good end."""
    job_id = re.findall("job_[0-9a-f]{32}", said)[0]
    return job(studio, job_id).status == "completed" and "completed" in said[-500:]


@pytest.mark.parametrize("program", snippets("README.md", "python"))
def test_the_readmes_python_submits_a_job_and_follows_it(studio: Studio, program: str) -> None:
    assert finished(studio, run(sys.executable, "-c", f"key = {studio.key!r}\n{program}"))


@pytest.mark.parametrize("program", snippets("clients/javascript/README.md", "js"))
def test_the_javascript_clients_readme_does_so_too(studio: Studio, program: str, tmp_path: Path) -> None:
    file = installed(tmp_path) / "program.mjs"
    file.write_text(f"const key = {studio.key!r};\n{program}")
    assert finished(studio, run(NODE, *flags(NODE), str(file)))
