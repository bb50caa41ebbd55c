"""The API's own document, held to by requests that Schemathesis makes up from it: every route, every check."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.contract.studio_for_strangers import KEY, studio_for_strangers

ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.fixture(scope="module")
def studio() -> Iterator[str]:
    with studio_for_strangers() as url:
        yield url


@pytest.mark.timeout(400)
def test_the_document_tells_the_truth(studio: str) -> None:
    schemathesis = [Path(sys.executable).with_name("schemathesis"), "--config-file", CONFIG]
    done = subprocess.run(
        [*schemathesis, "run", f"{studio}/api/v1/openapi.json", "--checks", "all", "--no-color"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    for phase in ("Examples", "Coverage", "Fuzzing", "Stateful"):
        assert f"✅ {phase}" in done.stdout, done.stdout
    still = httpx.get(f"{studio}/api/v1/keys", headers={"Authorization": f"Bearer {KEY}"})
    assert still.status_code == 200  # or all that came after would have been refused
