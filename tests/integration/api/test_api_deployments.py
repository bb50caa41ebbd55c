"""Deployments over HTTP: asked for, refused with the field, found, and taken off; with records in memory."""

import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.serving.records import Deployment, DeploymentsInMemory
from infra.settings import LocalEngine, Settings
from peft_studio.deployments import DeploymentStatus
from peft_studio.plan import RowFormat
from tests.adapter_files import weights
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.machines import made
from tests.integration.api.studio_in_memory import JobsInMemory, plan_of
from tests.model_folders import write_model

pytestmark = pytest.mark.anyio
KEY = {"Idempotency-Key": "once"}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_model(tmp_path / "base")


@pytest.fixture
def adapter_id(client: Client, base: Path) -> str:
    return uploaded(client, base)


def uploaded(client: Client, base: Path, **metadata: Any) -> str:
    described = json.dumps({"base_model": str(base), **metadata}).encode()
    answer = client.post("/api/v1/adapters/upload", files={"file": weights(), "metadata": described})
    assert answer.status_code == 201, answer.text
    return answer.json()["adapter_id"]


def deploy(client: Client, adapter_id: str, key: dict[str, str] | None = None, **changes: Any) -> Any:
    body = {"adapter_id": adapter_id, "platform": "local", **changes}
    return client.post("/api/v1/deployments", json=body, headers=key or {})


def refused(answer: Any, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    return answer.json()["error"]["details"]["field"]


async def test_a_deployment_is_asked_for_with_all_that_serving_needs(
    client: Client, adapter_id: str, deployments: DeploymentsInMemory, base: Path, tmp_path: Path
) -> None:
    answer = deploy(client, adapter_id, config={"instance_type": "local", "min_replicas": 1, "max_replicas": 1})
    assert answer.status_code == 201
    created = answer.json()
    (record,) = await deployments.all()
    assert created["deployment_id"] == record.deployment_id
    assert (created["status"], created["endpoint"]) == ("deploying", None)
    assert (record.adapter_id, record.base_model, record.chat) == (adapter_id, str(base), True)
    assert record.adapter == str(tmp_path / "data" / "adapters" / adapter_id)
    assert record.config.instance_type == "local" and record.revision


@pytest.mark.parametrize(
    ("chat", "template", "through"), [(None, True, True), (None, False, False), (False, True, False)]
)
async def test_prompts_go_through_the_template_as_the_metadata_or_the_model_says(
    client: Client, deployments: DeploymentsInMemory, base: Path, chat: bool | None, template: bool, through: bool
) -> None:
    if not template:
        (base / "tokenizer_config.json").write_text("{}")
    deploy(client, uploaded(client, base, chat=chat))
    assert (await deployments.all())[0].chat is through


async def test_a_jobs_adapter_is_deployed_as_its_plan_pinned_it_down(
    connect: Connect, jobs: JobsInMemory, deployments: DeploymentsInMemory, tmp_path: Path
) -> None:
    job = made(jobs, tmp_path)
    plan = plan_of(job.config)
    model = plan.model.model_copy(update={"revision": "abc", "path": "/models/one", "has_chat_template": True})
    for layout, chat in ((RowFormat.MESSAGES, True), (RowFormat.TEXT, False)):
        dataset = plan.dataset.model_copy(update={"format": layout})
        changed = plan.model_copy(update={"model": model, "dataset": dataset})
        Settings(data_dir=tmp_path).run_dir(job.job_id).write("plan.json", changed)
        created = deploy(connect(data_dir=tmp_path), job.job_id.replace("job_", "adapter_")).json()
        record = await deployments.get(created["deployment_id"])
        assert (record.base_model, record.revision, record.chat) == ("/models/one", "abc", chat)
        assert record.adapter == str(tmp_path / "adapters" / job.job_id)


@pytest.mark.parametrize(
    ("changes", "status", "field"),
    [
        ({"platform": "predibase"}, 409, "platform"),
        ({"platform": "RunPod"}, 409, "platform"),
        ({"platform": "nowhere"}, 400, "platform"),
        ({"platform": ""}, 400, "platform"),
        ({"platform": 4}, 400, "platform"),
        ({"config": {"max_replicas": 3}}, 400, "max_replicas"),
        ({"config": {"min_replicas": 2}}, 400, "max_replicas"),
        ({"config": {"min_replicas": 5, "max_replicas": 2}}, 400, "max_replicas"),
        ({"config": {"min_replicas": -1}}, 400, "min_replicas"),
        ({"config": {"max_replicas": 0}}, 400, "max_replicas"),
        ({"config": {"auto_scaling": True}}, 400, "auto_scaling"),
        ({"config": {"instance_type": "gpu-t4"}}, 400, "instance_type"),
        ({"config": {"gpu": 1}}, 400, "gpu"),
        ({"config": []}, 400, "config"),
        ({"more": 1}, 400, "more"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_with_the_field(
    client: Client, adapter_id: str, deployments: DeploymentsInMemory, changes: dict[str, Any], status: int, field: str
) -> None:
    answer = deploy(client, adapter_id, **changes)
    assert refused(answer, status) == field
    if status == 409:
        assert answer.json()["error"]["code"] == "PLATFORM_NOT_CONNECTED"
    assert await deployments.all() == []


@pytest.mark.parametrize("name", ["adapter_" + "0" * 32, "adapter_", "..", "x" * 300, ""])
async def test_an_adapter_that_is_not_there_is_not_deployed(
    client: Client, deployments: DeploymentsInMemory, name: str
) -> None:
    assert deploy(client, name).status_code in (400, 404)
    assert await deployments.all() == []


async def test_where_only_vllm_serves_adapters_one_that_it_does_not_take_is_refused(
    connect: Connect, adapter_id: str, deployments: DeploymentsInMemory
) -> None:
    assert deploy(connect(local_engine="vllm"), adapter_id).status_code == 201
    answer = deploy(connect(local_engine="vllm", vllm_max_lora_rank=1), adapter_id)
    assert refused(answer) == "adapter_id" and "max_lora_rank 1" in answer.json()["error"]["message"]
    assert len(await deployments.all()) == 1


async def test_a_base_model_that_is_gone_is_told_at_once(client: Client, adapter_id: str, base: Path) -> None:
    shutil.rmtree(base)
    assert refused(deploy(client, adapter_id)) == "base_model"


async def test_the_same_key_is_the_same_deployment_and_never_another(
    client: Client, connect: Connect, adapter_id: str, deployments: DeploymentsInMemory, base: Path
) -> None:
    first = deploy(client, adapter_id, KEY).json()
    assert deploy(client, adapter_id, KEY).json() == first
    assert len(await deployments.all()) == 1
    assert refused(deploy(client, uploaded(client, base), KEY), 409) == "Idempotency-Key"
    assert deploy(connect("rules"), adapter_id, KEY).json()["deployment_id"] != first["deployment_id"]
    assert len(first["deployment_id"]) == len("deploy_") + 32


def test_the_time_of_readiness_is_estimated_from_what_was_measured(
    client: Client, adapter_id: str, tmp_path: Path, base: Path
) -> None:
    def estimated() -> float:
        created = deploy(client, adapter_id).json()
        shown = client.get(f"/api/v1/deployments/{created['deployment_id']}").json()
        ready, begun = (datetime.fromisoformat(at) for at in (created["estimated_ready_time"], shown["created_at"]))
        return (ready - begun) / timedelta(seconds=1)

    assert 0 < estimated() < 60
    loads = [{"base_model": str(base), "size_bytes": None, "seconds": seconds} for seconds in (5, 300, 7)]
    (tmp_path / "data" / "load_times.json").write_text(json.dumps({"loads": loads}))
    assert estimated() == pytest.approx(7)


async def test_which_engine_serves_on_this_machine_is_said_once_it_does(
    client: Client, adapter_id: str, deployments: DeploymentsInMemory
) -> None:
    where = f"/api/v1/deployments/{deploy(client, adapter_id).json()['deployment_id']}"
    assert client.get(where).json()["engine"] is None
    record = await deployments.get(where.rpartition("/")[2])
    for engine, shown in (LocalEngine.VLLM, "vllm"), (LocalEngine.OWN, "endpoint"):
        loaded = {"endpoint": "http://127.0.0.1:9/v1", "engine": engine}
        await deployments.replace(record.model_copy(update=loaded))
        assert client.get(where).json()["engine"] == shown
    await deployments.replace(record.model_copy(update={"endpoint": "https://a.example/v1", "platform": "vllm"}))
    assert client.get(where).json()["engine"] is None


async def test_deployments_are_listed_by_state_and_page_by_page(
    client: Client, adapter_id: str, deployments: DeploymentsInMemory
) -> None:
    made_first = [deploy(client, adapter_id).json()["deployment_id"] for _ in range(5)]
    failed = await deployments.get(made_first[1])
    await deployments.replace(failed.model_copy(update={"status": DeploymentStatus.FAILED, "error": "it does not fit"}))
    (shown,) = client.get("/api/v1/deployments?status=failed").json()["deployments"]
    assert (shown["deployment_id"], shown["status"], shown["error"]) == (made_first[1], "failed", "it does not fit")
    unmeasured = {"requests_per_minute": None, "avg_latency_ms": None, "measured_by": None}
    assert shown["metrics"] == unmeasured | {"cost_per_hour": 0.0}
    for limit in (1, 2, 5, 100):
        found, cursor = [], ""
        while cursor is not None:
            page = client.get(f"/api/v1/deployments?limit={limit}{cursor and '&cursor=' + cursor}").json()
            found += [deployment["deployment_id"] for deployment in page["deployments"]]
            cursor = page["next_cursor"]
        assert found == made_first[::-1]


async def test_a_page_goes_on_behind_a_deployment_that_is_gone(
    client: Client, adapter_id: str, deployments: DeploymentsInMemory
) -> None:
    first, second = (deploy(client, adapter_id).json()["deployment_id"] for _ in range(2))
    page = client.get("/api/v1/deployments?limit=1").json()
    await deployments.delete(second)
    (found,) = client.get("/api/v1/deployments", params={"cursor": page["next_cursor"]}).json()["deployments"]
    assert found["deployment_id"] == first


@pytest.mark.parametrize("query", ["status=maybe", "limit=0", "limit=101", "cursor=x", "cursor=1.", "cursor=%00"])
def test_a_list_that_cannot_be_given_is_refused_with_the_parameter(client: Client, query: str) -> None:
    assert refused(client.get(f"/api/v1/deployments?{query}")) == query.partition("=")[0]


def test_a_removed_deployment_is_gone_and_frees_its_adapter(client: Client, adapter_id: str) -> None:
    deployment_id = deploy(client, adapter_id).json()["deployment_id"]
    assert client.delete(f"/api/v1/adapters/{adapter_id}").status_code == 409
    answer = client.delete(f"/api/v1/deployments/{deployment_id}")
    assert answer.json() == {"success": True, "deployment_id": deployment_id}
    assert client.get(f"/api/v1/deployments/{deployment_id}").status_code == 404
    assert client.delete(f"/api/v1/deployments/{deployment_id}").status_code == 404
    assert client.delete(f"/api/v1/adapters/{adapter_id}").status_code == 200


def test_a_deployment_that_does_not_run_yet_answers_no_prompt(client: Client, adapter_id: str) -> None:
    deployment_id = deploy(client, adapter_id).json()["deployment_id"]
    answer = client.post(f"/api/v1/deployments/{deployment_id}/test", json={"prompt": "Hello"})
    assert answer.status_code == 409
    assert answer.json()["error"]["details"]["status"] == "deploying"


async def test_an_endpoint_that_is_away_says_so_and_is_not_busy(
    client: Client, adapter_id: str, deployments: DeploymentsInMemory
) -> None:
    record = await deployments.get(deploy(client, adapter_id).json()["deployment_id"])
    away = {"status": DeploymentStatus.RUNNING, "endpoint": "http://127.0.0.1:1/v1"}
    await deployments.replace(record.model_copy(update=away))
    answer = client.post(f"/api/v1/deployments/{record.deployment_id}/test", json={"prompt": "Hello"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "RESOURCE_UNAVAILABLE")
    shown = client.get(f"/api/v1/deployments/{record.deployment_id}").json()
    assert (shown["status"], shown["metrics"]["requests_per_minute"]) == ("running", None)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["a"]}, "prompt"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 10**12}, "max_tokens"),
        ({"prompt": "a", "temperature": -1}, "temperature"),
        ({"prompt": "a", "temperature": 2.5}, "temperature"),
        ({"prompt": "a", "top_p": 1}, "top_p"),
    ],
)
def test_a_prompt_that_makes_no_sense_is_refused_with_the_field(
    client: Client, adapter_id: str, body: dict[str, Any], field: str
) -> None:
    deployment_id = deploy(client, adapter_id).json()["deployment_id"]
    answer = client.post(f"/api/v1/deployments/{deployment_id}/test", json=body)
    assert refused(answer) == field
    assert "Training" not in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["deploy_" + "0" * 32, "deploy_", "..%2F..", "deploy_A", "job_1"])
def test_an_unknown_deployment_is_not_found(client: Client, name: str) -> None:
    where = f"/api/v1/deployments/{name}"
    for answer in (client.get(where), client.delete(where), client.post(f"{where}/test", json={"prompt": "a"})):
        assert answer.status_code == 404


def test_a_key_that_may_only_read_deploys_nothing(connect: Connect, adapter_id: str) -> None:
    assert deploy(connect("reads"), adapter_id).status_code == 403
    assert connect("reads").get("/api/v1/deployments").json() == {"deployments": [], "next_cursor": None}


@pytest.mark.parametrize("unserved", [{"algorithm": "vera"}, {"objective": "reward"}])
async def test_an_adapter_that_the_endpoint_does_not_serve_is_refused_at_once(
    unserved: dict[str, str], connect: Connect, jobs: JobsInMemory, deployments: DeploymentsInMemory, tmp_path: Path
) -> None:
    job = made(jobs, tmp_path, **unserved)
    assert refused(deploy(connect(data_dir=tmp_path), job.job_id.replace("job_", "adapter_"))) == "adapter_id"
    assert await deployments.all() == []


class _AsTheAdapterIsDeleted(DeploymentsInMemory):
    """Records that are written while somebody deletes the adapter."""

    async def add(self, deployment: Deployment) -> None:
        await super().add(deployment)
        shutil.rmtree(deployment.adapter)


@pytest.fixture
def deployments(request: pytest.FixtureRequest) -> DeploymentsInMemory:
    return getattr(request, "param", DeploymentsInMemory)()


@pytest.mark.parametrize("deployments", [_AsTheAdapterIsDeleted], indirect=True)
async def test_an_adapter_that_is_deleted_meanwhile_is_not_deployed(
    client: Client, adapter_id: str, deployments: DeploymentsInMemory
) -> None:
    assert deploy(client, adapter_id).status_code == 404
    assert await deployments.all() == []


async def test_a_deployment_that_cannot_be_read_is_named_and_hides_no_other(
    client: Client, adapter_id: str, deployments: DeploymentsInMemory
) -> None:
    broken, other = (deploy(client, adapter_id).json()["deployment_id"] for _ in range(2))
    deployments.values[broken] |= {"status": "molten"}
    (shown,) = client.get("/api/v1/deployments").json()["deployments"]
    assert shown["deployment_id"] == other
    told = client.get(f"/api/v1/deployments/{broken}")
    assert told.status_code == 409 and broken in told.json()["error"]["message"]
