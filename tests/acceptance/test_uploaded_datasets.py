"""Data sets on a real studio: trained on by their id, seen through the warm server, resumed after a kill."""

import asyncio
import base64
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from benchmarks.studio import ROOT, Studio
from peft_studio.jobs import JobStatus
from tests.acceptance.conftest import eventually
from tests.acceptance.jobs import follow, job, part, run_dir, short_job, submit, wait_for_step

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
ROWS = (ROOT / "demo" / "support.jsonl").read_bytes()
TUS = {"Tus-Resumable": "1.0.0"}


@contextmanager
def http(studio: Studio) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=studio.url, headers={"Authorization": f"Bearer {studio.key}"}, timeout=90) as client:
        yield client


def upload(studio: Studio) -> str:
    with http(studio) as client:
        return client.post("/api/v1/datasets", files={"file": ("rows.jsonl", ROWS)}).json()["dataset_id"]


def left_of_uploads(studio: Studio) -> list[Path]:
    return list((studio.data_dir / "uploads").iterdir())


def begun(studio: Studio, method: str, path: str, headers: dict[str, str], content: bytes) -> socket.socket:
    """Send a request but for the second half of its body."""
    url = httpx.URL(studio.url)
    lines = {"Host": "studio", "Authorization": f"Bearer {studio.key}", "Content-Length": str(len(content))} | headers
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    connection = socket.create_connection((url.host, url.port or 80))
    connection.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + content[: len(content) // 2])
    return connection


def test_a_job_trains_on_an_uploaded_data_set_by_its_id(studio: Studio) -> None:
    dataset_id = upload(studio)
    job_id = submit(studio, dataset_path=dataset_id, max_steps=40, num_epochs=50)
    wait_for_step(studio, job_id, 1)
    with http(studio) as client:
        assert client.delete(f"/api/v1/datasets/{dataset_id}").status_code == 409
        follow(studio, job_id)
        done = job(studio, job_id)
        assert done.status is JobStatus.COMPLETED, done.error
        assert done.config.dataset_path == dataset_id
        plan = (run_dir(studio, job_id).path / "plan.json").read_text()
        assert client.get(f"/api/v1/datasets/{dataset_id}").json()["sha256"] in plan
        assert client.delete(f"/api/v1/datasets/{dataset_id}").status_code == 200


def test_a_data_set_is_seen_as_the_model_will_see_it(studio: Studio) -> None:
    dataset_id = upload(studio)
    model = {"base_model": str(ROOT / "demo" / "model"), "model_source": "local"}
    with http(studio) as client:
        answer = client.get(f"/api/v1/datasets/{dataset_id}/preview", params={**model, "limit": 2})
        assert answer.status_code == 200, answer.text
        preview = answer.json()
        assert [sample["row"] for sample in preview["samples"]] == [1, 2]
        assert preview["examined_rows"] == ROWS.count(b"\n")
        assert 0 < preview["supervised_share"] < 1
        learnt = "".join(token["text"] for token in preview["samples"][0]["tokens"] if token["loss"])
        assert learnt.startswith("team:") and learnt.endswith("<|end|>")
        columns = {"columns": '{"messages": "nothing"}', "long_rows": "split", "max_length": "8"}
        answer = client.get(f"/api/v1/datasets/{dataset_id}/preview", params=model | columns)
        assert "has no column 'nothing'" in answer.json()["error"]["message"]
        del columns["columns"]
        split = client.get(f"/api/v1/datasets/{dataset_id}/preview", params=model | columns).json()
        assert split["split_rows"] == split["examined_rows"]
        assert {len(sample["tokens"]) for sample in split["samples"]} <= set(range(2, 9))
        model["base_model"] = "/nowhere"
        answer = client.get(f"/api/v1/datasets/{dataset_id}/preview", params=model)
        assert answer.json()["error"]["details"]["field"] == "base_model"


def test_a_data_set_is_deleted_or_trained_on_and_never_both(studio: Studio) -> None:
    headers = {"Authorization": f"Bearer {studio.new_key(f'race-{uuid4().hex}')}"}

    async def race(client: httpx.AsyncClient, dataset_id: str, wait: float) -> tuple[int, int]:
        async def delete() -> httpx.Response:
            await asyncio.sleep(wait)
            return await client.delete(f"/datasets/{dataset_id}")

        body = {"config": short_job(dataset_path=dataset_id, max_steps=100_000, num_epochs=1000)}
        created, deleted = await asyncio.gather(client.post("/jobs", json=body), delete())
        if created.status_code == 201:
            (await client.post(f"/jobs/{created.json()['job_id']}/cancel")).raise_for_status()
        return created.status_code, deleted.status_code

    async def races() -> set[tuple[int, int]]:
        async with httpx.AsyncClient(base_url=f"{studio.url}/api/v1", headers=headers, timeout=60) as client:
            return {await race(client, upload(studio), wait / 100) for wait in range(12)}

    outcomes = asyncio.run(races())
    assert outcomes <= {(201, 409), (400, 200), (409, 200)}
    assert (201, 409) in outcomes


def test_a_sender_that_leaves_in_the_middle_leaves_nothing_behind(studio: Studio) -> None:
    before = len(left_of_uploads(studio))
    connection = begun(studio, "POST", "/api/v1/datasets?name=rows.jsonl", {}, ROWS)
    assert eventually(lambda: len(left_of_uploads(studio)) > before, 10)
    connection.close()
    assert eventually(lambda: len(left_of_uploads(studio)) == before, 10)


def test_an_upload_goes_on_where_it_was_when_the_api_was_killed(studio: Studio) -> None:
    content = ROWS * 15
    metadata = f"filename {base64.b64encode(b'rows.jsonl').decode()}"
    begin = {**TUS, "Upload-Length": str(len(content)), "Upload-Metadata": metadata}
    piece = {**TUS, "Content-Type": "application/offset+octet-stream"}
    with http(studio) as client:
        path = client.post("/api/v1/datasets/uploads", headers=begin).headers["Location"]
        client.patch(path, content=content[:1000], headers={**piece, "Upload-Offset": "0"}).raise_for_status()
    file = studio.data_dir / "uploads" / path.rsplit("/", 1)[1] / "rows.jsonl"
    with begun(studio, "PATCH", path, {**piece, "Upload-Offset": "1000"}, content[1000:]):
        assert eventually(lambda: file.stat().st_size > 1000, 20)  # it is in the middle of it
        with http(studio) as client:
            assert client.delete(path, headers=TUS).status_code == 409
        part(studio, "api.app").kill()
    assert eventually(lambda: answers(studio), 60)
    with http(studio) as client:
        offset = int(client.head(path, headers=TUS).raise_for_status().headers["Upload-Offset"])
        assert 1000 < offset == file.stat().st_size < len(content)
        headers = {**piece, "Upload-Offset": str(offset)}
        answer = client.patch(path, content=content[offset:], headers=headers).raise_for_status()
        dataset = client.get(f"/api/v1/datasets/{answer.headers['Dataset-Id']}").json()
        assert Path(dataset["path"]).read_bytes() == content


def answers(studio: Studio) -> bool:
    try:
        return httpx.get(f"{studio.url}/healthz").status_code == 200
    except httpx.TransportError:
        return False
