"""A model handed to an Ollama daemon, simulated on loopback."""

import hashlib
from pathlib import Path

import pytest

from infra.exports.ollama import create_model
from infra.simulators.exchange import Reply
from infra.simulators.ollama_models import CreatedModels
from infra.simulators.sources import Trouble, create_ollama
from peft_studio.errors import ExportFailed, ResourceUnavailable
from tests.loopback import on_loopback

pytestmark = pytest.mark.anyio
STOPS = {"stop": ["<|im_end|>"]}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF" + bytes(3 << 20))
    return tmp_path / "tiny.gguf"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def test_a_model_is_created_of_its_weights_template_and_stops(weights: Path) -> None:
    trouble, created = Trouble(), CreatedModels()
    with on_loopback(create_ollama(trouble, created)) as url:
        for _ in range(2):
            await create_model(url, "support", weights, sha256(weights), "{{ .Prompt }}", STOPS)
    model = created.models["support"]
    assert created.blobs[model["files"]["tiny.gguf"]] == weights.read_bytes()
    assert (model["template"], model["parameters"]) == ("{{ .Prompt }}", STOPS)
    assert len([path for path in trouble.asked if path.startswith("/api/blobs/")]) == 3  # sent once, looked for twice


async def test_a_refusal_in_the_middle_of_the_answer_is_one(weights: Path) -> None:
    refusing = create_ollama(Trouble(), CreatedModels(refusal="unsupported architecture"))
    with on_loopback(refusing) as url, pytest.raises(ExportFailed, match="unsupported architecture"):
        await create_model(url, "support", weights, sha256(weights), "", STOPS)


async def test_a_file_that_changed_on_its_way_is_refused(weights: Path) -> None:
    with on_loopback(create_ollama(Trouble())) as url, pytest.raises(ExportFailed, match="digest mismatch"):
        await create_model(url, "support", weights, "0" * 64, "", STOPS)


async def test_a_daemon_that_is_away_or_failing_may_be_asked_again(weights: Path) -> None:
    failing = create_ollama(Trouble(reply=Reply({"error": "busy"}, 503)))
    with on_loopback(failing) as url, pytest.raises(ResourceUnavailable):
        await create_model(url, "support", weights, sha256(weights), "", STOPS)
    with pytest.raises(ResourceUnavailable):
        await create_model(url, "support", weights, sha256(weights), "", STOPS)
