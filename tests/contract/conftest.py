"""A client of the real API, with a studio in memory behind it, a real endpoint beside it, and simulated platforms."""

from collections.abc import Callable, Iterator

import httpx
import pytest

from infra.serving.endpoint import prepare
from infra.serving.routes import create_app
from infra.simulators.accounts import create_accounts, platform_urls
from infra.simulators.grpc import HttpOrGrpc
from infra.simulators.sources import Repositories, Trouble, create_hub
from tests.integration.api.fixtures import (
    client,
    connect,
    coordination,
    credentials,
    deploy_runs,
    deployments,
    evaluation_runs,
    export_runs,
    jobs,
)
from tests.loopback import on_loopback
from tests.model_folders import write_model
from tests.tiny import tiny_model
from tests.unit.serving.adapters import make_adapter

__all__ = [
    "client",
    "connect",
    "coordination",
    "credentials",
    "deploy_runs",
    "deployments",
    "evaluation_runs",
    "export_runs",
    "jobs",
]


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Have an adapter served under a name; returns the endpoint's address."""
    base = tiny_model(tmp_path_factory.mktemp("base"))
    adapter = make_adapter(tmp_path_factory.mktemp("adapter"), base, seed=0)
    with on_loopback(create_app(prepare(str(base)))) as url:

        def serve(name: str) -> str:
            loading = {"lora_name": name, "lora_path": str(adapter)}
            httpx.post(f"{url}/v1/load_lora_adapter", json=loading, timeout=60).raise_for_status()
            return f"{url}/v1"

        yield serve


@pytest.fixture(scope="session")
def platforms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where each platform answers; the hub has the document's model, a very small one."""
    folder = write_model(tmp_path_factory.mktemp("hub"), vocab_size=50)
    hub = create_hub(Repositories({"meta-llama/Llama-2-7b-hf": folder}), Trouble())
    with on_loopback(create_accounts(), http=HttpOrGrpc) as url, on_loopback(hub) as hub_url:
        yield platform_urls(url) | {"huggingface": hub_url}
