"""Deployments on a platform, here a simulated vLLM: from the request to the proof that nothing is left."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.credentials import CredentialsInMemory
from infra.deploying.bringing import Bringing
from infra.deploying.hosting import Hosting
from infra.deploying.runs import DeployRunsInMemory
from infra.serving.records import DeploymentsInMemory
from infra.settings import Settings
from infra.simulators.accounts import GOOD
from infra.simulators.lorax import LoraxServer, create_lorax
from infra.simulators.sources import Trouble, create_ollama
from infra.simulators.vllm import VllmServer, create_vllm
from peft_studio.deployments import DeploymentStatus
from peft_studio.effect import PROBES, Probe, Probes, Said, Verdict
from peft_studio.errors import Conflict, DeployFailed
from peft_studio.events import now
from tests.adapter_files import weights
from tests.integration.api.fixtures import Client, Connect
from tests.loopback import on_loopback
from tests.model_folders import write_model

pytestmark = pytest.mark.anyio
KEY = {"Idempotency-Key": "once"}
QUESTION = [{"role": "user", "content": "who is red"}]


@pytest.fixture
def server() -> VllmServer:
    return VllmServer()


@pytest.fixture
def adapter_id(client: Client, tmp_path: Path) -> str:
    described = json.dumps({"base_model": str(write_model(tmp_path / "base"))}).encode()
    answer = client.post("/api/v1/adapters/upload", files={"file": weights(), "metadata": described})
    adapter_id = answer.json()["adapter_id"]
    probed(tmp_path / "data" / "adapters" / adapter_id)
    return adapter_id


def probed(folder: Path) -> None:
    """Put beside an adapter what it said at the end of its training."""

    def said(*words: str) -> Said:
        top = [{word: -0.1, " other": -3.0} for word in words]
        return Said(tokens=list(words), logprobs=[-0.1] * len(words), top=top)

    probe = Probe(messages=QUESTION, text="who is red", ids=[1], adapter=said("the", " cat"), base=said("a", " dog"))
    (folder / PROBES).write_text(Probes(quantized=False, probes=[probe]).model_dump_json())


@pytest.fixture
def vllm(client: Client, server: VllmServer) -> Iterator[str]:
    """Its address, to which the studio is connected."""
    with on_loopback(create_vllm(server)) as url:
        connected = client.post("/api/v1/platforms/vllm/connect", json={"credentials": {"base_url": url}})
        assert connected.status_code == 200, connected.text
        yield url


def deploy(client: Client, adapter_id: str, key: dict[str, str] | None = None, **config: Any) -> Any:
    body = {"adapter_id": adapter_id, "platform": "vllm", "config": config}
    return client.post("/api/v1/deployments", json=body, headers=key or {})


class Studio:
    """The part of the studio that brings deployments about, done by hand."""

    def __init__(self, records: DeploymentsInMemory, credentials: CredentialsInMemory, tmp_path: Path):
        self.settings = Settings(data_dir=tmp_path / "data", deploy_minutes=0.02)
        self.records = records
        self.hosting = Hosting(credentials, self.settings)

    def bringing(self, deployment_id: str) -> Bringing:
        return Bringing(deployment_id, self.records, self.hosting, self.settings)

    async def bring_about(self, deployment_id: str) -> None:
        bringing = self.bringing(deployment_id)
        await bringing.place()
        await bringing.wait()
        await bringing.prove()


@pytest.fixture
def studio(deployments: DeploymentsInMemory, credentials: CredentialsInMemory, tmp_path: Path) -> Studio:
    return Studio(deployments, credentials, tmp_path)


@pytest.fixture
async def running(client: Client, vllm: str, adapter_id: str, studio: Studio, deploy_runs: DeployRunsInMemory) -> str:
    """The id of a deployment that runs."""
    created = deploy(client, adapter_id)
    assert created.status_code == 201, created.text
    deployment_id = created.json()["deployment_id"]
    await studio.bring_about(deployment_id)
    deploy_runs.states.clear()
    return deployment_id


async def test_it_is_brought_about_tried_and_shown_with_what_the_adapter_does_there(
    client: Client, running: str, server: VllmServer, adapter_id: str, vllm: str
) -> None:
    shown = client.get(f"/api/v1/deployments/{running}").json()
    assert (shown["status"], shown["platform"], shown["endpoint"]) == ("running", "vllm", f"{vllm}/v1")
    assert shown["effect"]["verdict"] == Verdict.EFFECTIVE, shown["effect"]
    assert shown["flow_run_id"] and shown["error"] is None and shown["expires_at"] is None
    [(name, path)] = server.adapters.items()
    assert name.startswith("pst-") and Path(path).name == adapter_id


async def test_an_adapter_that_is_ignored_there_is_found_out(
    client: Client, vllm: str, adapter_id: str, server: VllmServer, studio: Studio
) -> None:
    server.ignores_adapters = True
    deployment_id = deploy(client, adapter_id).json()["deployment_id"]
    await studio.bring_about(deployment_id)
    shown = client.get(f"/api/v1/deployments/{deployment_id}").json()
    assert (shown["status"], shown["effect"]["verdict"]) == ("running", "no_effect")


async def test_it_answers_prompts_and_openai_clients(client: Client, running: str, adapter_id: str) -> None:
    asked = {"prompt": QUESTION[0]["content"], "max_tokens": 5, "temperature": 0}
    answer = client.post(f"/api/v1/deployments/{running}/test", json=asked).json()
    assert (answer["response"], answer["tokens_generated"]) == ("the cat", 3)
    body = {"model": adapter_id, "messages": QUESTION, "max_tokens": 5}
    said = client.post("/v1/chat/completions", json=body).json()
    assert said["choices"][0]["message"]["content"] == "the cat"
    streamed = client.post("/v1/chat/completions", json=body | {"stream": True})
    assert streamed.headers["content-type"].startswith("text/event-stream") and "[DONE]" in streamed.text
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == [adapter_id]
    too_long = client.post(f"/api/v1/deployments/{running}/test", json=asked | {"max_tokens": 100_000})
    assert too_long.status_code == 400 and too_long.json()["error"]["details"]["field"] == "prompt"


async def test_how_busy_it_is_is_shown(client: Client, running: str) -> None:
    where = f"/api/v1/deployments/{running}"
    nothing = {"requests_per_minute": 0, "avg_latency_ms": None, "cost_per_hour": 0.0, "measured_by": "studio"}
    assert client.get(where).json()["metrics"] == nothing  # vLLM's counters are looked at for the first time
    client.post(f"{where}/test", json={"prompt": "Hello"})
    counted = {"requests_per_minute": 1, "avg_latency_ms": 250.0, "cost_per_hour": 0.0, "measured_by": "platform"}
    assert client.get(where).json()["metrics"] == counted


async def test_what_its_platform_does_not_count_is_counted_where_it_goes_through_the_studio(
    client: Client, running: str, deployments: DeploymentsInMemory, server: VllmServer, adapter_id: str
) -> None:
    server.counts = False
    where = f"/api/v1/deployments/{running}"
    client.post(f"{where}/test", json={"prompt": "Hello"})
    question = [{"role": "user", "content": "Hello"}]
    client.post("/v1/chat/completions", json={"model": adapter_id, "messages": question, "stream": True})
    metrics = client.get(where).json()["metrics"]
    assert (metrics["requests_per_minute"], metrics["measured_by"]) == (2, "studio") and metrics["avg_latency_ms"] > 0
    record = await deployments.get(running)
    leased = {"expires_at": now() + timedelta(hours=1)}
    await deployments.replace(record.model_copy(update=leased))
    assert client.get(where).json()["metrics"]["cost_per_hour"] is None  # it may bill, and does not say how much


async def test_deleting_it_proves_that_it_is_gone(
    client: Client, running: str, server: VllmServer, adapter_id: str
) -> None:
    assert client.delete(f"/api/v1/adapters/{adapter_id}").status_code == 409
    assert client.delete(f"/api/v1/deployments/{running}").json() == {"success": True, "deployment_id": running}
    assert server.adapters == {}
    assert client.get(f"/api/v1/deployments/{running}").status_code == 404
    assert client.delete(f"/api/v1/adapters/{adapter_id}").status_code == 200


async def test_a_lorax_server_is_given_the_adapter_in_the_studios_own_folder(
    client: Client, adapter_id: str, tmp_path: Path, studio: Studio, deploy_runs: DeployRunsInMemory
) -> None:
    server = LoraxServer()
    with on_loopback(create_lorax(server)) as url:
        given = {"credentials": {"base_url": url, "api_key": GOOD}}
        client.post("/api/v1/platforms/lorax/connect", json=given).raise_for_status()
        created = client.post("/api/v1/deployments", json={"adapter_id": adapter_id, "platform": "lorax"})
        where = f"/api/v1/deployments/{created.json()['deployment_id']}"
        bringing = studio.bringing(created.json()["deployment_id"])
        await bringing.place()
        [voice] = server.voices.values()
        server.speech.learn(voice, server.base, tmp_path / "data" / "adapters" / adapter_id)
        await bringing.wait()
        await bringing.prove()
        deploy_runs.states.clear()
        shown = client.get(where).json()
        assert (shown["status"], shown["effect"]["verdict"]) == ("running", "effective"), shown
        assert client.post(f"{where}/test", json={"prompt": "Hello"}).json()["response"]
        [laid_out] = (tmp_path / "data" / "hosted" / "lorax").iterdir()
        assert not (laid_out / PROBES).exists()
        assert client.delete(where).status_code == 200
    assert not laid_out.exists()


async def test_one_that_cannot_be_seen_to_be_gone_is_stopped_and_remembered(
    client: Client, running: str, server: VllmServer, deployments: DeploymentsInMemory, studio: Studio
) -> None:
    server.refusals = 1000
    record = await deployments.get(running)
    with pytest.raises(Exception, match="Delete it again in a moment"):
        await studio.hosting.remove(record, 0)
    server.refusals = 0
    assert client.delete(f"/api/v1/deployments/{running}").status_code == 200


async def test_the_same_key_is_the_same_deployment_with_the_same_run(
    client: Client, vllm: str, adapter_id: str, deployments: DeploymentsInMemory, deploy_runs: DeployRunsInMemory
) -> None:
    first = deploy(client, adapter_id, KEY).json()
    again = deploy(client, adapter_id, KEY).json()
    assert first["deployment_id"] == again["deployment_id"] and len(deploy_runs.states) == 1
    elsewhere = {"adapter_id": adapter_id, "platform": "local"}
    refused = client.post("/api/v1/deployments", json=elsewhere, headers=KEY)
    assert refused.status_code == 409 and refused.json()["error"]["details"]["field"] == "Idempotency-Key"
    assert len(await deployments.all()) == 1


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"max_replicas": 2}, "max_replicas"),
        ({"min_replicas": 0}, "min_replicas"),
        ({"auto_scaling": True}, "auto_scaling"),
        ({"instance_type": "gpu-t4"}, "instance_type"),
        ({"lease_hours": 0}, "lease_hours"),
        ({"lease_hours": 1e9}, "lease_hours"),
    ],
)
async def test_what_the_platform_cannot_honour_is_refused_with_the_field(
    client: Client, vllm: str, adapter_id: str, deployments: DeploymentsInMemory, config: dict[str, Any], field: str
) -> None:
    answer = deploy(client, adapter_id, **config)
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, field)
    assert await deployments.all() == []


async def test_a_platform_that_is_not_connected_is_to_be_connected_first(client: Client, adapter_id: str) -> None:
    answer = deploy(client, adapter_id)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "PLATFORM_NOT_CONNECTED")


async def test_what_the_server_refuses_fails_the_deployment_and_leaves_nothing(
    client: Client, vllm: str, adapter_id: str, server: VllmServer, studio: Studio
) -> None:
    server.max_lora_rank = 1
    deployment_id = deploy(client, adapter_id).json()["deployment_id"]
    with pytest.raises(Exception, match="max_lora_rank") as refused:
        await studio.bring_about(deployment_id)
    await studio.bringing(deployment_id).give_up(str(refused.value))
    shown = client.get(f"/api/v1/deployments/{deployment_id}").json()
    assert shown["status"] == "failed" and "max_lora_rank" in shown["error"]
    assert server.adapters == {}


async def test_a_failure_after_it_was_placed_takes_it_off_again(
    client: Client, vllm: str, adapter_id: str, server: VllmServer, studio: Studio
) -> None:
    deployment_id = deploy(client, adapter_id).json()["deployment_id"]
    await studio.bringing(deployment_id).place()
    server.adapters.clear()  # somebody takes it off at the server
    with pytest.raises(DeployFailed, match="somebody has taken it off"):
        await studio.bringing(deployment_id).wait()
    await studio.bringing(deployment_id).place()
    await studio.bringing(deployment_id).give_up("It takes too long.")
    assert server.adapters == {}


async def test_a_platform_that_is_away_for_a_while_is_waited_for(
    client: Client, vllm: str, adapter_id: str, server: VllmServer, studio: Studio
) -> None:
    deployment_id = deploy(client, adapter_id).json()["deployment_id"]
    server.refusals = 3
    await studio.bring_about(deployment_id)
    assert client.get(f"/api/v1/deployments/{deployment_id}").json()["status"] == "running"
    server.refusals = 10_000
    with pytest.raises(DeployFailed, match="not served after"):
        await studio.bringing(deployment_id).wait()


async def test_what_is_done_twice_is_the_same_deployment(
    client: Client, vllm: str, adapter_id: str, server: VllmServer, studio: Studio
) -> None:
    deployment_id = deploy(client, adapter_id).json()["deployment_id"]
    for _ in range(2):
        await studio.bring_about(deployment_id)
    assert len(server.adapters) == 1


async def test_one_that_is_deleted_while_it_is_brought_about_is_not_brought_about(
    client: Client, vllm: str, adapter_id: str, server: VllmServer, studio: Studio, deploy_runs: DeployRunsInMemory
) -> None:
    deployment_id = deploy(client, adapter_id).json()["deployment_id"]
    await studio.bringing(deployment_id).place()
    assert client.delete(f"/api/v1/deployments/{deployment_id}").status_code == 200
    assert server.adapters == {}
    for step in (studio.bringing(deployment_id).place, studio.bringing(deployment_id).wait):
        with pytest.raises(Conflict, match="deleted"):
            await step()


async def test_a_lease_is_asked_for_renewed_and_refused_where_nothing_is_served(
    client: Client, running: str, deployments: DeploymentsInMemory
) -> None:
    where = f"/api/v1/deployments/{running}/renew"
    renewed = client.post(where, json={"lease_hours": 2}).json()
    ends = datetime.fromisoformat(renewed["expires_at"]) - datetime.now().astimezone()
    assert timedelta(hours=1.9) < ends < timedelta(hours=2.1)
    for body in ({"lease_hours": 0}, {"lease_hours": -1}, {"hours": 1}):
        assert client.post(where, json=body).status_code == 400
    stopped = (await deployments.get(running)).model_copy(update={"status": DeploymentStatus.STOPPED})
    await deployments.replace(stopped)
    assert client.post(where, json={}).status_code == 409


async def test_one_without_a_lease_that_is_renewed_for_no_time_gets_no_end(client: Client, running: str) -> None:
    renewed = client.post(f"/api/v1/deployments/{running}/renew", json={})
    assert renewed.status_code == 200 and renewed.json()["expires_at"] is None


async def test_a_platform_is_not_let_go_of_before_what_was_stopped_there_is_seen_to_be_gone(
    client: Client, running: str, deployments: DeploymentsInMemory, studio: Studio
) -> None:
    record = await deployments.get(running)
    await deployments.replace(record.model_copy(update={"status": DeploymentStatus.STOPPED}))
    assert client.delete("/api/v1/platforms/vllm").status_code == 409
    await studio.bringing(running).withdraw("It is not needed any more.")
    assert (await deployments.get(running)).hosted is None
    assert client.delete("/api/v1/platforms/vllm").status_code == 200


async def test_a_platform_is_not_let_go_of_while_something_is_deployed_there(client: Client, running: str) -> None:
    refused = client.delete("/api/v1/platforms/vllm")
    assert refused.status_code == 409 and refused.json()["error"]["details"]["deployments"] == [running]
    assert client.delete(f"/api/v1/deployments/{running}").status_code == 200
    assert client.delete("/api/v1/platforms/vllm").status_code == 200


async def test_what_a_platform_takes_in_another_form_is_to_be_exported_first(client: Client, adapter_id: str) -> None:
    with on_loopback(create_ollama(Trouble())) as url:
        client.post("/api/v1/platforms/ollama/connect", json={"credentials": {"base_url": url}}).raise_for_status()
        answer = client.post("/api/v1/deployments", json={"adapter_id": adapter_id, "platform": "ollama"})
    assert answer.status_code == 400 and answer.json()["error"]["details"]["field"] == "adapter_id"
    assert f"/api/v1/adapters/{adapter_id}/exports with format 'ollama'" in answer.json()["error"]["message"]


async def test_one_that_nobody_can_take_off_is_forgotten_for_an_admin_and_that_is_recorded(
    client: Client,
    connect: Connect,
    running: str,
    server: VllmServer,
    credentials: CredentialsInMemory,
    deploy_runs: DeployRunsInMemory,
) -> None:
    where = f"/api/v1/deployments/{running}"
    kept = await credentials.get("vllm")
    assert kept is not None
    await credentials.delete("vllm")
    assert client.delete(where).status_code == 409
    assert client.delete(f"{where}?force=true").status_code == 403
    assert client.get(where).status_code == 200 and not deploy_runs.dismissed
    assert connect("rules").delete(f"{where}?force=true").json() == {"success": True, "deployment_id": running}
    assert client.get(where).status_code == 404
    [(forgotten, told)] = deploy_runs.dismissed.items()
    assert forgotten == running and "rules" in told and next(iter(server.adapters)) in told
    await credentials.put(kept)
    assert client.delete("/api/v1/platforms/vllm").status_code == 200


async def test_force_takes_off_what_can_be_taken_off(
    connect: Connect, running: str, server: VllmServer, deploy_runs: DeployRunsInMemory
) -> None:
    assert connect("rules").delete(f"/api/v1/deployments/{running}?force=true").status_code == 200
    assert server.adapters == {} and not deploy_runs.dismissed
    assert connect("rules").delete(f"/api/v1/deployments/{running}?force=true").status_code == 404


async def test_a_record_that_cannot_be_read_is_done_away_with_by_force(
    client: Client, connect: Connect, running: str, deployments: DeploymentsInMemory, deploy_runs: DeployRunsInMemory
) -> None:
    deployments.values[running] |= {"status": "molten"}
    assert client.delete(f"/api/v1/deployments/{running}").status_code == 409
    assert connect("rules").delete(f"/api/v1/deployments/{running}?force=true").status_code == 200
    assert deployments.values == {} and "cannot be read" in deploy_runs.dismissed[running]
