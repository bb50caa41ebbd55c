"""An adapter's whole way over HTTP: uploaded, loaded by stock PEFT, deployed, prompted, listed with its figures."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from litestar import Litestar
from litestar.testing import TestClient
from openai import BadRequestError, NotFoundError, OpenAI
from peft import PeftModel

from api.app import create_app
from api.dependencies import RunsOfAdapters
from infra.adapters.runs import RunsInMemory
from infra.deploying.runs import DeployRunsInMemory
from infra.exports.runs import ExportRunsInMemory
from infra.serving.endpoint import prepare
from infra.serving.endpoint_client import EndpointClient
from infra.serving.records import DeploymentsInMemory
from infra.serving.routes import create_app as create_endpoint
from infra.settings import Settings
from peft_studio.adapter_config import CONFIG
from peft_studio.adapter_files import WEIGHTS
from peft_studio.deployments import DeploymentStatus
from peft_studio.ports import free_port
from tests.contract.promises import PROMISES
from tests.contract.shapes import differences, shape_of
from tests.integration.api.studio_in_memory import JobsInMemory, KeysInMemory
from tests.tiny import tiny_tokenizer
from tests.unit.serving.adapters import KINDS, Answerer, load, stock_peft

Client = TestClient[Litestar]
PROMISED = {promise.title: promise for promise in PROMISES}
PROMPT = tiny_tokenizer()("the red cat sees")["input_ids"]


@pytest.fixture(scope="module")
def endpoint(base_folder: Path) -> Iterator[str]:
    """A real endpoint, in a thread."""
    port = free_port()
    app = create_endpoint(prepare(str(base_folder)))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}/v1"
    server.should_exit = True
    thread.join()


@pytest.fixture
def deployments() -> DeploymentsInMemory:
    return DeploymentsInMemory()


@pytest.fixture
def client(deployments: DeploymentsInMemory, studio_settings: Settings) -> Iterator[Client]:
    settings = studio_settings.model_copy(update={"requests_per_minute": 1000})
    jobs = JobsInMemory()
    runs = RunsOfAdapters(ExportRunsInMemory(), DeployRunsInMemory(), RunsInMemory(), jobs)
    app = create_app(jobs, KeysInMemory(), settings, deployments, runs=runs)
    with TestClient(app, raise_server_exceptions=False) as client:
        client.headers["Authorization"] = "Bearer writes"
        yield client


def upload(client: Client, adapter: Path, base: Path, *, config: bool, **metadata: Any) -> Any:
    described = json.dumps({"base_model": str(base), **metadata}).encode()
    files: dict[str, Any] = {"file": (adapter / WEIGHTS).read_bytes(), "metadata": described}
    if config:
        files["config"] = (adapter / CONFIG).read_bytes()
    answer = client.post("/api/v1/adapters/upload", files=files)
    assert answer.status_code == 201, answer.text
    return answer.json()


def logits(folder: Path, base: Path) -> torch.Tensor:
    with stock_peft():
        model = PeftModel.from_pretrained(load(base), str(folder)).eval()
    with torch.inference_mode():
        return model(input_ids=torch.tensor([PROMPT])).logits[0]


@pytest.mark.parametrize("kind", KINDS)
def test_stock_peft_loads_an_uploaded_adapter_and_computes_the_same(
    client: Client, adapters: Mapping[str, Path], base_folder: Path, stock: Answerer, kind: str
) -> None:
    adapter_id = upload(client, adapters[kind], base_folder, config=True)["adapter_id"]
    folder = Path(client.get(f"/api/v1/adapters/{adapter_id}").json()["path"]).parent
    assert torch.equal(logits(folder, base_folder), stock.logits(kind, PROMPT))


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_without_a_config_weights_and_metadata_say_it_all(
    client: Client, adapters: Mapping[str, Path], base_folder: Path, stock: Answerer, kind: str
) -> None:
    adapter_id = upload(client, adapters[kind], base_folder, config=False, alpha=16)["adapter_id"]
    folder = Path(client.get(f"/api/v1/adapters/{adapter_id}").json()["path"]).parent
    assert torch.equal(logits(folder, base_folder), stock.logits(kind, PROMPT))


async def bring_about(deployment_id: str, deployments: DeploymentsInMemory, endpoint: str) -> None:
    """Do what the worker's keeper does."""
    record = await deployments.get(deployment_id)
    async with EndpointClient(endpoint) as served:
        await served.load(record.deployment_id, record.adapter)
    await deployments.replace(record.model_copy(update={"status": DeploymentStatus.RUNNING, "endpoint": endpoint}))


def test_an_uploaded_adapter_answers_as_promised(
    client: Client, deployments: DeploymentsInMemory, endpoint: str, adapters: Mapping[str, Path], base_folder: Path
) -> None:
    def matches(title: str, answer: Any) -> None:
        assert answer.is_success, answer.text
        assert differences(shape_of(PROMISED[title].answer, None), answer.json()) == []

    uploaded = upload(client, adapters["lora"], base_folder, config=True)
    assert differences(shape_of(PROMISED["Upload Adapter"].answer, None), uploaded) == []
    request = {"adapter_id": uploaded["adapter_id"], "platform": "local"}
    created = client.post("/api/v1/deployments", json=request)
    matches("Create Deployment", created)
    deployment_id = created.json()["deployment_id"]
    asyncio.run(bring_about(deployment_id, deployments, endpoint))
    body = PROMISED["Test Deployment"].body
    matches("Test Deployment", client.post(f"/api/v1/deployments/{deployment_id}/test", json=body))
    listed = client.get("/api/v1/deployments?status=running")
    matches("List Deployments", listed)
    metrics = listed.json()["deployments"][0]["metrics"]
    assert metrics["requests_per_minute"] == 1 and metrics["avg_latency_ms"] > 0 and metrics["cost_per_hour"] == 0
    for refused, field in [
        ({"prompt": "the cat", "max_tokens": 5000}, "max_tokens"),
        ({"prompt": "x" * (1 << 20)}, "prompt"),
        ({"prompt": " \n"}, "prompt"),
    ]:
        answer = client.post(f"/api/v1/deployments/{deployment_id}/test", json=refused)
        assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, field)


def test_a_deployed_adapter_answers_openais_client_by_its_id(
    client: Client, deployments: DeploymentsInMemory, endpoint: str, adapters: Mapping[str, Path], base_folder: Path
) -> None:
    adapter_id = upload(client, adapters["lora"], base_folder, config=True)["adapter_id"]
    openai = OpenAI(base_url="http://testserver.local/v1", api_key="writes", http_client=client, max_retries=0)
    question: Any = [{"role": "user", "content": "who is the red cat"}]
    with pytest.raises(NotFoundError) as absent:
        openai.chat.completions.create(model=adapter_id, messages=question)
    assert absent.value.param == "model" and "deployments" in absent.value.message
    created = client.post("/api/v1/deployments", json={"adapter_id": adapter_id, "platform": "local"}).json()
    asyncio.run(bring_about(created["deployment_id"], deployments, endpoint))
    assert [model.id for model in openai.models.list()] == [adapter_id]
    assert openai.models.retrieve(adapter_id).id == adapter_id
    asked: Any = {"model": adapter_id, "messages": question, "temperature": 0, "max_tokens": 8}
    whole = openai.chat.completions.create(**asked).choices[0].message.content
    pieces = [piece.choices[0].delta.content or "" for piece in openai.chat.completions.create(**asked, stream=True)]
    assert whole and "".join(pieces) == whole
    text = openai.completions.create(model=adapter_id, prompt="the red cat sees", max_tokens=4, temperature=0)
    assert text.usage is not None and text.usage.completion_tokens <= 4
    with pytest.raises(BadRequestError) as refused:
        openai.chat.completions.create(**asked | {"temperature": -1})
    assert refused.value.param == "temperature"
