"""An adapter's files over HTTP: downloaded as one archive or one by one, and deleted where they may be."""

import hashlib
import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from infra.serving.records import Deployment, DeploymentsInMemory
from peft_studio.adapter_files import WEIGHTS
from peft_studio.adapter_folder import RECORD
from peft_studio.deployments import DeploymentStatus
from tests.adapter_files import weights
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.machines import made
from tests.integration.api.studio_in_memory import JobsInMemory

pytestmark = pytest.mark.anyio
CONTENT = weights()
TAG = f'"sha256:{hashlib.sha256(CONTENT).hexdigest()}"'


@pytest.fixture
def adapter_id(client: Client) -> str:
    answer = client.post("/api/v1/adapters/upload", files={"file": CONTENT, "metadata": b'{"base_model": "org/model"}'})
    return answer.json()["adapter_id"]


def download(client: Client, adapter_id: str, file: str | None = WEIGHTS, **headers: str) -> Any:
    where = f"/api/v1/adapters/{adapter_id}/download"
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.get(where, params={"file": file} if file is not None else {}, headers=sent)


def test_an_archive_holds_what_peft_loads_and_is_always_the_same(client: Client, adapter_id: str) -> None:
    answer = download(client, adapter_id, None)
    assert answer.headers["Content-Type"] == "application/zip"
    assert f"{adapter_id}.zip" in answer.headers["Content-Disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["adapter_config.json", WEIGHTS]
        assert archive.read(WEIGHTS) == CONTENT
        assert json.loads(archive.read("adapter_config.json"))["peft_type"] == "LORA"
    assert download(client, adapter_id, None).content == answer.content


def test_an_adapter_of_a_job_is_downloaded_the_same_way(connect: Connect, jobs: JobsInMemory, tmp_path: Path) -> None:
    job = made(jobs, tmp_path)
    answer = download(connect(data_dir=tmp_path), job.job_id.replace("job_", "adapter_"))
    assert (answer.status_code, answer.content) == (200, b"weights")


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=3-9", 3, 9),
        ("bytes=100-", 100, len(CONTENT) - 1),
        ("bytes=-7", len(CONTENT) - 7, len(CONTENT) - 1),
        ("bytes=5-999999", 5, len(CONTENT) - 1),
        ("bytes=-999999", 0, len(CONTENT) - 1),
    ],
)
def test_a_range_of_a_file_is_sent(client: Client, adapter_id: str, asked: str, first: int, last: int) -> None:
    answer = download(client, adapter_id, Range=asked)
    assert answer.status_code == 206
    assert answer.content == CONTENT[first : last + 1]
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(CONTENT)}"
    assert (answer.headers["Content-Length"], answer.headers["ETag"]) == (str(last - first + 1), TAG)


@pytest.mark.parametrize("asked", ["bytes=9-3", "bytes=", "bytes=-", "lines=1-2", "bytes=0-1,5-6", "x", "bytes=a-b"])
def test_a_range_that_is_not_understood_is_answered_with_everything(
    client: Client, adapter_id: str, asked: str
) -> None:
    answer = download(client, adapter_id, Range=asked)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize("asked", [f"bytes={len(CONTENT)}-", "bytes=99999999-", "bytes=-0"])
def test_a_range_behind_the_end_is_refused_with_the_size(client: Client, adapter_id: str, asked: str) -> None:
    answer = download(client, adapter_id, Range=asked)
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(CONTENT)}"
    assert answer.json()["error"]["details"] == {"size_bytes": len(CONTENT)}


def test_a_file_that_is_known_already_is_not_sent_again(client: Client, adapter_id: str) -> None:
    for known in (TAG, f"W/{TAG}", f'"x", {TAG}', "*"):
        answer = download(client, adapter_id, If_None_Match=known)
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", TAG)
    assert download(client, adapter_id, If_None_Match='"x"').status_code == 200


def test_a_broken_download_goes_on_only_with_the_same_file(client: Client, adapter_id: str) -> None:
    assert download(client, adapter_id, Range="bytes=5-", If_Range=TAG).status_code == 206
    assert download(client, adapter_id, Range="bytes=5-", If_Range='"x"').content == CONTENT


@pytest.mark.parametrize("name", ["", "other", RECORD, f"../{WEIGHTS}", "/etc/passwd", "..", ".", "a\0b", "ä" * 5000])
def test_only_files_of_the_adapter_can_be_had(client: Client, adapter_id: str, name: str) -> None:
    answer = download(client, adapter_id, name)
    assert answer.status_code == 404
    assert answer.json()["error"]["details"]["field"] == "file"


def test_links_in_the_folder_lead_nowhere(client: Client, adapter_id: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "data" / "adapters" / adapter_id / "link").symlink_to(tmp_path / "secret")
    assert download(client, adapter_id, "link").status_code == 404


@pytest.mark.parametrize("name", ["adapter_" + "0" * 32, "adapter_..%2F..", "..%2F..%2Fetc", "adapter_%00"])
def test_an_unknown_adapter_has_no_files_and_is_not_deleted(client: Client, name: str) -> None:
    assert client.get(f"/api/v1/adapters/{name}/download").status_code == 404
    assert client.delete(f"/api/v1/adapters/{name}").status_code == 404


def test_a_deleted_adapter_is_gone(client: Client, adapter_id: str, tmp_path: Path) -> None:
    assert client.delete(f"/api/v1/adapters/{adapter_id}").json() == {"success": True, "adapter_id": adapter_id}
    assert client.get("/api/v1/adapters").json()["adapters"] == []
    assert client.delete(f"/api/v1/adapters/{adapter_id}").status_code == 404
    assert list((tmp_path / "data" / "adapters").iterdir()) == []


def test_a_job_whose_adapter_was_deleted_still_answers(connect: Connect, jobs: JobsInMemory, tmp_path: Path) -> None:
    client = connect(data_dir=tmp_path)
    kept, job = made(jobs, tmp_path), made(jobs, tmp_path)
    assert client.delete(f"/api/v1/adapters/{job.job_id.replace('job_', 'adapter_')}").status_code == 200
    assert [found["job_id"] for found in client.get("/api/v1/adapters").json()["adapters"]] == [kept.job_id]
    assert client.get(f"/api/v1/jobs/{job.job_id}").json()["artifact"]["path"] == str(
        job.artifact and job.artifact.path
    )
    assert [path.name for path in (tmp_path / "adapters").iterdir()] == [kept.job_id]


async def test_an_adapter_that_is_served_is_not_deleted(
    client: Client, adapter_id: str, deployments: DeploymentsInMemory
) -> None:
    record = Deployment(
        deployment_id="deploy_1", adapter_id=adapter_id, adapter="/a", base_model="org/model", chat=True
    )
    await deployments.add(record)
    answer = client.delete(f"/api/v1/adapters/{adapter_id}")
    assert answer.status_code == 409
    assert answer.json()["error"]["details"] == {"adapter_id": adapter_id, "deployments": ["deploy_1"]}
    assert download(client, adapter_id).content == CONTENT
    await deployments.replace(record.model_copy(update={"status": DeploymentStatus.FAILED}))
    assert client.delete(f"/api/v1/adapters/{adapter_id}").status_code == 200


@pytest.mark.parametrize("place", ["outside", "runs", "link", "data_dir"])
def test_nothing_outside_the_store_is_ever_deleted(
    connect: Connect, jobs: JobsInMemory, tmp_path: Path, place: str
) -> None:
    """Whatever a job's record says about where its adapter lies."""
    data_dir = tmp_path / "data"
    job = made(jobs, data_dir)
    folders = {
        "outside": tmp_path / "elsewhere" / job.job_id,
        "runs": data_dir / "runs" / job.job_id,
        "link": data_dir / "output" / job.job_id,
        "data_dir": data_dir,
    }
    target = folders[place]
    if place == "link":
        (tmp_path / "elsewhere").mkdir()
        target.parent.symlink_to(tmp_path / "elsewhere")
    shutil.copytree(data_dir / "adapters" / job.job_id, target, dirs_exist_ok=True)
    assert job.artifact is not None
    moved = job.artifact.model_copy(update={"path": str(target / WEIGHTS)})
    jobs.jobs[job.job_id] = job.model_copy(update={"artifact": moved})
    answer = connect(data_dir=data_dir).delete(f"/api/v1/adapters/{job.job_id.replace('job_', 'adapter_')}")
    assert answer.status_code == 409
    assert (target / WEIGHTS).read_bytes() == b"weights"


def test_an_adapter_in_its_jobs_output_directory_is_deleted_alone(
    connect: Connect, jobs: JobsInMemory, tmp_path: Path
) -> None:
    job = made(jobs, tmp_path)
    target = tmp_path / "output" / job.job_id
    shutil.copytree(tmp_path / "adapters" / job.job_id, target)
    (tmp_path / "output" / "mine.txt").write_text("mine")
    assert job.artifact is not None
    moved = job.artifact.model_copy(update={"path": str(tmp_path / "output" / "." / job.job_id / WEIGHTS)})
    jobs.jobs[job.job_id] = job.model_copy(update={"artifact": moved})
    client = connect(data_dir=tmp_path)
    assert client.delete(f"/api/v1/adapters/{job.job_id.replace('job_', 'adapter_')}").status_code == 200
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["mine.txt"]


def test_what_was_being_deleted_when_the_api_died_is_deleted_when_it_starts(connect: Connect, tmp_path: Path) -> None:
    left = tmp_path / "data" / "adapters" / ".deleted.adapter_1.abc"
    left.mkdir(parents=True)
    (left / WEIGHTS).write_bytes(b"weights")
    connect()
    assert not left.exists()
