"""The effect test against real endpoints: what is wrong with a deployment is found, and named."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from transformers import AutoModelForCausalLM

from infra.serving.endpoint import prepare
from infra.serving.endpoint_client import EndpointClient
from infra.serving.proving import AtEndpoint, prove, read_probes
from infra.serving.records import Deployment
from infra.serving.routes import create_app
from peft_studio.adapter_folder import files_of
from peft_studio.effect import PROBES, EffectTest, Verdict
from peft_studio.trainer.outcome import DONE
from peft_studio.trainer.program import run as train
from peft_studio.trainer.stop import StopSignal
from tests.loopback import on_loopback
from tests.tiny import TEMPLATE, make_run, tiny_model, write_rows

pytestmark = pytest.mark.anyio
ANSWERS = ["the red cat sleeps", "a blue dog runs", "my house is red"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("effect") / "base")


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter as the trainer leaves it."""
    folder = tmp_path_factory.mktemp("trained")
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": f"who {answer[-4:]}"}, {"role": "assistant", "content": answer}]}
        for answer in ANSWERS
    ]
    settings: dict[str, Any] = {"num_epochs": 20, "learning_rate": 1e-2, "rank": 8, "dropout": 0.1}
    run = make_run(folder / "run", base, write_rows(folder / "rows.jsonl", rows * 4), checkpoint_steps=200, **settings)
    assert train(run, StopSignal()) == DONE, run.read_failure()
    return run.adapter


@pytest.fixture(scope="module")
def endpoint(base: Path) -> Iterator[str]:
    with on_loopback(create_app(prepare(str(base)))) as url:
        yield f"{url}/v1"


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "adapter"))


async def what_is_found(url: str, adapter: Path, base: Path) -> EffectTest:
    name = f"deploy_{abs(hash(str(adapter))):x}"
    deployment = Deployment(
        deployment_id=name, adapter_id="adapter_1", adapter=str(adapter), base_model=str(base), chat=True
    )
    async with EndpointClient(url) as client:
        await client.load(name, str(adapter))
        return await prove(AtEndpoint(client, deployment), Path(deployment.adapter))


def change_weights(adapter: Path, factor: float) -> None:
    path = adapter / "adapter_model.safetensors"
    weights = safetensors.torch.load_file(path)
    changed = {name: weight * factor if "lora_B" in name else weight for name, weight in weights.items()}
    safetensors.torch.save_file(changed, path, {"format": "pt"})


async def test_an_adapter_that_is_served_as_it_was_trained_is_effective(
    endpoint: str, trained: Path, base: Path
) -> None:
    found = await what_is_found(endpoint, trained, base)
    assert found.verdict is Verdict.EFFECTIVE, found
    assert found.deviation is not None and found.effect is not None and found.tolerance is not None
    assert found.deviation < 1e-3 < found.tolerance < found.effect


async def test_an_adapter_that_is_ignored_has_no_effect(endpoint: str, copy: Path, base: Path) -> None:
    change_weights(copy, 0)  # what an endpoint answers that does not look at the adapter
    found = await what_is_found(endpoint, copy, base)
    assert (found.verdict, found.effect) == (Verdict.NO_EFFECT, pytest.approx(0, abs=1e-5))
    assert "ignored" in found.reason


async def test_an_adapter_that_is_scaled_otherwise_has_diverged(endpoint: str, copy: Path, base: Path) -> None:
    change_weights(copy, 0.4)
    found = await what_is_found(endpoint, copy, base)
    assert found.verdict is Verdict.DIVERGED, found
    assert "than at the end of its training" in found.reason


async def test_a_wrong_chat_template_is_caught(endpoint: str, copy: Path, base: Path) -> None:
    (copy / "chat_template.jinja").write_text(TEMPLATE.replace("<|end|>\n", "\n").replace("<|assistant|>", "Answer:"))
    found = await what_is_found(endpoint, copy, base)
    assert found.verdict is Verdict.DIVERGED, found
    assert "template" in found.reason


async def test_a_template_that_refuses_the_questions_is_a_divergence(endpoint: str, copy: Path, base: Path) -> None:
    (copy / "chat_template.jinja").write_text("{{ raise_exception('only systems') }}")
    found = await what_is_found(endpoint, copy, base)
    assert (found.verdict, found.deviation) == (Verdict.DIVERGED, None)


async def test_another_revision_of_the_base_model_is_caught(copy: Path, base: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(base, tmp_path / "other"))
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(3)
    for weight in model.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    model.save_pretrained(other)
    config = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": str(other), "revision": None})
    )
    with on_loopback(create_app(prepare(str(other)))) as url:
        found = await what_is_found(f"{url}/v1", copy, other)
    assert found.verdict is Verdict.DIVERGED, found
    assert "revision" in found.reason


async def test_without_probes_only_base_and_adapter_are_compared(endpoint: str, copy: Path, base: Path) -> None:
    (copy / PROBES).write_text("torn {")
    assert read_probes(copy) is None
    (copy / PROBES).unlink()
    found = await what_is_found(endpoint, copy, base)
    assert (found.verdict, found.deviation) == (Verdict.EFFECTIVE, None)
    assert "no probes" in found.reason


async def test_an_endpoint_that_is_gone_gives_no_verdict(trained: Path, base: Path) -> None:
    deployment = Deployment(
        deployment_id="deploy_1", adapter_id="adapter_1", adapter=str(trained), base_model=str(base), chat=True
    )
    async with EndpointClient("http://127.0.0.1:1/v1") as client:
        found = await prove(AtEndpoint(client, deployment), Path(deployment.adapter))
    assert found.verdict is None
    assert "could not be asked" in found.reason


def test_probes_are_not_handed_out_with_the_adapter(trained: Path) -> None:
    assert (trained / PROBES).is_file()
    assert PROBES not in files_of(trained)
