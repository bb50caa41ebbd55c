"""Ollama as a host, against a simulated daemon: what is peculiar to it, beside the contract of all hosts."""

from pathlib import Path

import pytest

from infra.hosts.base import Wanted
from infra.hosts.ollama import Ollama
from infra.providers.base import Account
from infra.simulators.ollama_models import CreatedModels
from infra.simulators.sources import Trouble, create_ollama
from peft_studio.errors import InvalidConfig
from peft_studio.exporter.modelfile import OllamaModel, read_modelfile
from tests.loopback import on_loopback

pytestmark = pytest.mark.anyio
NAME = "pst-abc123-0f0f0f0f"
TALKS = OllamaModel('{{ .Prompt }} "quoted"', ["<|im_end|>", "</s>"], None, [])


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF" + bytes(100))
    (tmp_path / "Modelfile").write_text(TALKS.modelfile("tiny.gguf"))
    return Wanted(name=NAME, folder=tmp_path, base_model="org/model", rank=8)


def test_what_was_written_into_a_modelfile_is_read_again() -> None:
    assert read_modelfile(TALKS.modelfile("tiny.gguf")) == ("tiny.gguf", TALKS.template, TALKS.stops)
    with pytest.raises(InvalidConfig, match="export the adapter again"):
        read_modelfile("FROM llama3\n")


async def test_an_export_becomes_a_model_with_its_template_and_its_stops(wanted: Wanted) -> None:
    created = CreatedModels()
    with on_loopback(create_ollama(Trouble(), created)) as url:
        await Ollama(Account(url, {})).deploy(wanted)
    model = created.models[NAME]
    assert (model["template"], model["parameters"]) == (TALKS.template, {"stop": TALKS.stops})


async def test_what_is_no_export_for_it_is_refused(wanted: Wanted, tmp_path: Path) -> None:
    (tmp_path / "Modelfile").unlink()
    with pytest.raises(InvalidConfig, match="export it with format 'ollama'"):
        Ollama(Account("http://127.0.0.1:1", {})).check(wanted)


async def test_a_model_that_the_daemon_refuses_is_no_deployment(wanted: Wanted) -> None:
    refusing = CreatedModels(refusal="unsupported architecture")
    with on_loopback(create_ollama(Trouble(), refusing)) as url:
        with pytest.raises(InvalidConfig, match="unsupported architecture") as refused:
            await Ollama(Account(url, {})).deploy(wanted)
        assert refused.value.details["field"] == "adapter_id"
