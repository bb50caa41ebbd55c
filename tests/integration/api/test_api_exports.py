"""Exports over HTTP: asked for, refused with the field, looked at, downloaded, stopped and deleted; runs in memory."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import StateType
from pydantic import SecretStr

from infra.credentials import Credentials, CredentialsInMemory
from infra.exports.runs import ExportRunsInMemory
from infra.exports.store import ExportFolder
from infra.settings import Settings
from peft_studio.events import now
from peft_studio.exports import ExportResult, ExportStep, ExportTask, flow_run_id_of_export
from tests.adapter_files import shapes, weights
from tests.integration.api.fixtures import Client, Connect
from tests.model_folders import write_model

pytestmark = pytest.mark.anyio
KEY = {"Idempotency-Key": "once"}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_model(tmp_path / "base")


@pytest.fixture
def adapter_id(client: Client, base: Path) -> str:
    return uploaded(client, base)


def uploaded(client: Client, base: Path, content: bytes | None = None) -> str:
    described = json.dumps({"base_model": str(base)}).encode()
    files = {"file": content or weights(), "metadata": described}
    answer = client.post("/api/v1/adapters/upload", files=files)
    assert answer.status_code == 201, answer.text
    return answer.json()["adapter_id"]


def ask(client: Client, adapter_id: str, key: dict[str, str] | None = None, **body: Any) -> Any:
    return client.post(f"/api/v1/adapters/{adapter_id}/exports", json=body, headers=key or {})


def field(answer: Any, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    return answer.json()["error"]["details"]["field"]


def end(runs: ExportRunsInMemory, export_id: str, settings: Settings, content: bytes = b"weights") -> None:
    """Have an export end well, as its flow would."""
    folder = ExportFolder(export_id, settings)
    (folder.begin() / "model.gguf").write_bytes(content)
    result = folder.place(ExportResult(files=[]))
    run_id = flow_run_id_of_export(export_id)
    step = ExportStep(step="done", progress=1, result=result).model_dump_json()
    runs.runs[run_id] = replace(
        runs.runs[run_id], state_type=StateType.COMPLETED, result=step, start_time=now(), end_time=now()
    )


def settings_of(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


async def test_an_export_is_asked_for_with_all_that_it_stands_on(
    client: Client, adapter_id: str, export_runs: ExportRunsInMemory, base: Path
) -> None:
    answer = ask(client, adapter_id, format="gguf", gguf_type="q8_0")
    assert answer.status_code == 201
    shown = answer.json()
    assert (shown["status"], shown["step"], shown["progress"]) == ("pending", "queued", 0)
    run = export_runs.runs[flow_run_id_of_export(shown["export_id"])]
    task = ExportTask.model_validate(run.parameters["task"])
    assert (task.adapter_id, task.base_model, task.algorithm, task.create) == (adapter_id, str(base), "lora", False)
    assert Path(task.adapter).is_dir()


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"format": "onnx"}, "format"),
        ({}, "format"),
        ({"format": "gguf", "gguf_type": "q2_k"}, "gguf_type"),
        ({"format": "merged", "gguf_type": "f16"}, "gguf_type"),
        ({"format": "gguf", "rank": 4}, "rank"),
        ({"format": "lora", "rank": 0}, "rank"),
        ({"format": "gguf", "name": "../x"}, "name"),
        ({"format": "gguf", "type": "f16"}, "type"),
        ({"format": "lora", "rank": 4}, "format"),  # it is one already
        ({"format": "ollama", "create": True}, "create"),
    ],
)
async def test_what_cannot_be_asked_for_is_refused_with_the_field(
    body: dict[str, Any], wrong: str, client: Client, adapter_id: str
) -> None:
    assert field(ask(client, adapter_id, **body), 400 if "create" not in body else 409).endswith(wrong)


async def test_unknown_adapters_and_exports_are_not_found(client: Client) -> None:
    assert ask(client, "adapter_" + "0" * 32, format="merged").status_code == 404
    for export_id in ("export_" + "0" * 32, "export_x", "nonsense"):
        assert client.get(f"/api/v1/exports/{export_id}").status_code == 404
        assert client.get(f"/api/v1/exports/{export_id}/download").status_code == 404
        assert client.post(f"/api/v1/exports/{export_id}/cancel").status_code == 404
        assert client.delete(f"/api/v1/exports/{export_id}").status_code == 404
    assert field(client.get("/api/v1/exports?cursor=x")) == "cursor"


async def test_a_base_model_that_is_gone_or_has_changed_is_told_at_once(
    client: Client, adapter_id: str, base: Path
) -> None:
    shutil.rmtree(base)
    assert client.get(f"/api/v1/adapters/{adapter_id}").status_code == 200
    answer = ask(client, adapter_id, format="merged")
    assert (field(answer) == "adapter_id" and "no folder" in answer.text) or "base model" in answer.text


async def test_an_architecture_that_llama_cpp_does_not_get_is_refused(client: Client, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", architectures=["FalconForCausalLM"])
    adapter_id = uploaded(client, other)
    answer = ask(client, adapter_id, format="gguf")
    assert field(answer) == "format" and "Falcon" in answer.text and "Qwen2" in answer.text
    assert ask(client, adapter_id, format="merged").status_code == 201


async def test_a_disk_without_room_is_told_before_anything_begins(connect: Connect, tmp_path: Path) -> None:
    adapter_id = uploaded(connect(), write_model(tmp_path / "base"))
    small = connect(disk_reserve_bytes=1 << 60)
    answer = ask(small, adapter_id, format="merged")
    assert answer.status_code == 503 and "disk" in answer.text
    assert small.get("/api/v1/exports").json()["exports"] == []


async def test_the_same_request_again_is_the_same_export(client: Client, adapter_id: str) -> None:
    first = ask(client, adapter_id, KEY, format="merged").json()["export_id"]
    assert ask(client, adapter_id, KEY, format="merged").json()["export_id"] == first
    assert field(ask(client, adapter_id, KEY, format="lora"), 409) == "Idempotency-Key"
    assert ask(client, adapter_id, format="merged").json()["export_id"] != first


async def test_exports_are_listed_newest_first_and_by_adapter(client: Client, adapter_id: str, base: Path) -> None:
    other = uploaded(client, base, weights(shapes(4)))
    made = [ask(client, one, format="merged").json()["export_id"] for one in (adapter_id, other, adapter_id)]
    page = client.get("/api/v1/exports", params={"limit": 2}).json()
    assert [one["export_id"] for one in page["exports"]] == [made[2], made[1]]
    rest = client.get("/api/v1/exports", params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert ([one["export_id"] for one in rest["exports"]], rest["next_cursor"]) == ([made[0]], None)
    own = client.get("/api/v1/exports", params={"adapter_id": adapter_id, "status": "pending"}).json()["exports"]
    assert [one["export_id"] for one in own] == [made[2], made[0]]
    assert client.get("/api/v1/exports", params={"status": "completed"}).json()["exports"] == []


async def test_a_finished_export_is_downloaded_whole_and_in_ranges(
    client: Client, adapter_id: str, export_runs: ExportRunsInMemory, tmp_path: Path
) -> None:
    export_id = ask(client, adapter_id, format="gguf").json()["export_id"]
    where = f"/api/v1/exports/{export_id}/download"
    assert client.get(where).status_code == 409
    end(export_runs, export_id, settings_of(tmp_path))
    shown = client.get(f"/api/v1/exports/{export_id}").json()
    assert (shown["status"], shown["progress"], shown["result"]["files"][0]["size_bytes"]) == ("completed", 1, 7)
    assert client.get(where).headers["content-type"] == "application/zip"
    part = client.get(where, params={"file": "model.gguf"}, headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"igh")
    assert part.headers["etag"] == f'"sha256:{shown["result"]["files"][0]["sha256"]}"'
    assert field(client.get(where, params={"file": ".export.json"}), 404) == "file"
    shutil.rmtree(Path(shown["path"]))
    assert "gone" in client.get(where).json()["error"]["message"]


async def test_an_export_is_stopped_and_only_then_deleted(
    client: Client, adapter_id: str, export_runs: ExportRunsInMemory, tmp_path: Path
) -> None:
    export_id = ask(client, adapter_id, format="gguf").json()["export_id"]
    folder = ExportFolder(export_id, settings_of(tmp_path))
    folder.begin()
    assert client.delete(f"/api/v1/exports/{export_id}").status_code == 409
    assert client.post(f"/api/v1/exports/{export_id}/cancel").json()["status"] == "cancelled"
    assert [*folder.path.iterdir()] == []
    assert client.post(f"/api/v1/exports/{export_id}/cancel").status_code == 409
    assert client.delete(f"/api/v1/exports/{export_id}").json() == {"success": True, "export_id": export_id}
    assert not folder.path.exists()
    assert client.get(f"/api/v1/exports/{export_id}").status_code == 404


async def test_why_an_export_failed_is_shown(client: Client, adapter_id: str, export_runs: ExportRunsInMemory) -> None:
    export_id = ask(client, adapter_id, format="gguf").json()["export_id"]
    run_id = flow_run_id_of_export(export_id)
    step = ExportStep(step="done", progress=1, error="llama.cpp cannot load the file").model_dump_json()
    export_runs.runs[run_id] = replace(export_runs.runs[run_id], state_type=StateType.FAILED, result=step)
    shown = client.get(f"/api/v1/exports/{export_id}").json()
    assert (shown["status"], shown["error"]) == ("failed", "llama.cpp cannot load the file")


async def test_a_connected_daemon_is_to_create_the_model_unless_it_is_not(
    client: Client, adapter_id: str, export_runs: ExportRunsInMemory, credentials: CredentialsInMemory
) -> None:
    await credentials.put(Credentials(platform="ollama", verified_at=now(), values={"base_url": SecretStr("http://x")}))
    for create, expected in ((None, True), (False, False)):
        export_id = ask(client, adapter_id, format="ollama", create=create).json()["export_id"]
        task = export_runs.runs[flow_run_id_of_export(export_id)].parameters["task"]
        assert task["create"] is expected


async def test_a_key_that_only_reads_starts_and_deletes_nothing(connect: Connect, adapter_id: str) -> None:
    reader = connect("reads")
    assert ask(reader, adapter_id, format="merged").status_code == 403
    assert reader.get("/api/v1/exports").status_code == 200


async def test_an_export_that_cannot_be_read_is_shown_as_far_as_it_can_and_hides_no_other(
    client: Client, adapter_id: str, export_runs: ExportRunsInMemory
) -> None:
    first, second = (ask(client, adapter_id, format="merged").json()["export_id"] for _ in range(2))
    run_id = flow_run_id_of_export(first)
    export_runs.runs[run_id] = replace(export_runs.runs[run_id], result="[]", parameters={"task": 1})
    newest, oldest = client.get("/api/v1/exports").json()["exports"]
    assert (newest["export_id"], newest["error"]) == (second, None)
    assert oldest["export_id"] == first and "cannot be read" in oldest["error"]
