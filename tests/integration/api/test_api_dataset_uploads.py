"""Resumable uploads over HTTP: the tus protocol, whoever breaks off, and wherever."""

import base64
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from infra.settings import Settings
from infra.uploads import UploadRecord, Uploads
from peft_studio.stored_datasets import FileType
from tests.integration.api.fixtures import Client, Connect

ROWS = b"".join(json.dumps({"prompt": f"Hello {n}", "completion": "World"}).encode() + b"\n" for n in range(100))
UPLOADS = "/api/v1/datasets/uploads"
TUS = {"Tus-Resumable": "1.0.0"}
PIECE = {**TUS, "Content-Type": "application/offset+octet-stream"}
UNKNOWN = "upload_" + "0" * 32


@pytest.fixture
def studio(connect: Connect, tmp_path: Path) -> Client:
    return connect(data_dir=tmp_path)


def metadata(**values: str) -> str:
    return ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in values.items())


def begin(client: Client, length: int = len(ROWS), **values: str) -> Any:
    names = {"filename": "rows.jsonl"} | values
    return client.post(UPLOADS, headers={**TUS, "Upload-Length": str(length), "Upload-Metadata": metadata(**names)})


def begun(client: Client, length: int = len(ROWS), **values: str) -> str:
    answer = begin(client, length, **values)
    assert answer.status_code == 201, answer.text
    return answer.headers["Location"]


def send(client: Client, path: str, offset: int, content: Any) -> Any:
    return client.patch(path, content=content, headers={**PIECE, "Upload-Offset": str(offset)})


def offset_of(client: Client, path: str) -> int:
    answer = client.head(path, headers=TUS)
    assert answer.status_code == 200
    return int(answer.headers["Upload-Offset"])


def refused(answer: Any, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    return answer.json()["error"]["details"]


def test_an_upload_in_pieces_becomes_a_data_set(studio: Client, tmp_path: Path) -> None:
    path = begun(studio)
    for offset in range(0, len(ROWS), 1000):
        answer = send(studio, path, offset, ROWS[offset : offset + 1000])
        assert answer.status_code == 204
        assert answer.headers["Upload-Offset"] == str(min(offset + 1000, len(ROWS)))
        assert answer.headers["Tus-Resumable"] == "1.0.0"
    dataset = studio.get(f"/api/v1/datasets/{answer.headers['Dataset-Id']}").json()
    assert (dataset["rows"], dataset["sha256"]) == (100, hashlib.sha256(ROWS).hexdigest())
    folder = tmp_path / "datasets" / dataset["dataset_id"]
    assert sorted(file.name for file in folder.iterdir()) == ["dataset.json", "rows.jsonl"]
    assert list((tmp_path / "uploads").iterdir()) == []


def test_a_sender_that_missed_the_last_answer_is_told_again(studio: Client) -> None:
    path = begun(studio)
    dataset_id = send(studio, path, 0, ROWS).headers["Dataset-Id"]
    answer = studio.head(path, headers=TUS)
    assert answer.headers["Dataset-Id"] == dataset_id
    assert answer.headers["Upload-Offset"] == answer.headers["Upload-Length"] == str(len(ROWS))


def test_the_api_says_what_it_can_do(connect: Connect, tmp_path: Path) -> None:
    answer = connect(data_dir=tmp_path, max_dataset_bytes=1234).options(UPLOADS)
    assert answer.status_code == 204
    assert answer.headers["Tus-Version"] == "1.0.0"
    assert answer.headers["Tus-Max-Size"] == "1234"
    assert set(answer.headers["Tus-Extension"].split(",")) == {"creation", "expiration", "termination"}


def test_an_upload_outlives_the_api(connect: Connect, studio: Client, tmp_path: Path) -> None:
    path = begun(studio)
    send(studio, path, 0, ROWS[:700])
    another = connect(data_dir=tmp_path)
    assert offset_of(another, path) == 700
    assert "Dataset-Id" in send(another, path, 700, ROWS[700:]).headers


def test_what_came_of_a_request_that_was_cut_off_counts(studio: Client, tmp_path: Path) -> None:
    path = begun(studio)
    assert refused(send(studio, path, 0, iter([ROWS[:300], ROWS, b"x"])), 413)["limit_bytes"] == len(ROWS)
    assert offset_of(studio, path) in (0, 300)  # what was gathered with too much is refused with it


def test_an_upload_whose_bytes_were_all_there_when_the_api_was_killed_is_made_a_data_set(
    studio: Client, tmp_path: Path
) -> None:
    path = begun(studio)
    upload_id = path.rsplit("/", 1)[1]
    (tmp_path / "uploads" / upload_id / "rows.jsonl").write_bytes(ROWS)
    dataset_id = studio.head(path, headers=TUS).headers["Dataset-Id"]
    assert studio.get(f"/api/v1/datasets/{dataset_id}").json()["rows"] == 100


def test_only_one_request_at_a_time_writes(studio: Client, tmp_path: Path) -> None:
    path = begun(studio)
    upload = Uploads(Settings(data_dir=tmp_path)).open(path.rsplit("/", 1)[1])
    for answer in (send(studio, path, 0, ROWS), studio.delete(path, headers=TUS)):
        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "CONFLICT"
    assert offset_of(studio, path) == 0
    upload.close()
    assert send(studio, path, 0, ROWS).status_code == 204


@pytest.mark.parametrize("offset", [0, 499, 501, len(ROWS)])
def test_a_piece_for_another_place_is_refused_and_the_right_one_named(studio: Client, offset: int) -> None:
    path = begun(studio)
    send(studio, path, 0, ROWS[:500])
    assert refused(send(studio, path, offset, ROWS[:10]), 409) == {"field": "Upload-Offset", "offset": 500}
    assert offset_of(studio, path) == 500


def test_more_than_was_announced_is_refused(studio: Client) -> None:
    path = begun(studio)
    assert refused(send(studio, path, 0, ROWS + b"x"), 413)["limit_bytes"] == len(ROWS)
    assert offset_of(studio, path) == 0


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Tus-Resumable": "0.2.2"}, 412),
        ({"Content-Type": "application/json"}, 415),
        ({"Upload-Offset": "-1"}, 400),
        ({"Upload-Offset": "many"}, 400),
        ({"Upload-Offset": ""}, 400),
    ],
)
def test_a_piece_with_wrong_headers_is_refused(studio: Client, headers: dict[str, str], status: int) -> None:
    path = begun(studio)
    answer = studio.patch(path, content=ROWS, headers={**PIECE, "Upload-Offset": "0", **headers})
    refused(answer, status)
    assert offset_of(studio, path) == 0


def test_another_version_is_told_the_right_one(studio: Client) -> None:
    answer = studio.post(UPLOADS, headers={"Upload-Length": "1"})
    assert answer.status_code == 412
    assert answer.headers["Tus-Version"] == "1.0.0"


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"Upload-Metadata": metadata(filename="rows.exe")}, "Upload-Metadata"),
        ({"Upload-Metadata": ""}, "Upload-Metadata"),
        ({"Upload-Metadata": "filename ####"}, "Upload-Metadata"),
        ({"Upload-Metadata": "filename /w=="}, "Upload-Metadata"),
        ({"Upload-Length": "0"}, "Upload-Length"),
        ({"Upload-Length": "-5"}, "Upload-Length"),
        ({"Upload-Length": "x"}, "Upload-Length"),
    ],
)
def test_an_upload_without_length_or_type_is_refused(
    studio: Client, tmp_path: Path, headers: dict[str, str], field: str
) -> None:
    good = {"Upload-Length": "5", "Upload-Metadata": metadata(filename="a.jsonl")}
    assert refused(studio.post(UPLOADS, headers={**TUS, **good, **headers}))["field"] == field
    del good[field]
    assert refused(studio.post(UPLOADS, headers={**TUS, **good})) == {"field": field, "issue": "Required"}
    assert not list(tmp_path.glob("uploads/*"))


def test_an_upload_larger_than_allowed_or_than_the_disk_is_refused_at_once(connect: Connect, tmp_path: Path) -> None:
    assert refused(begin(connect(data_dir=tmp_path, max_dataset_bytes=10), 11), 413)["limit_bytes"] == 10
    answer = begin(connect(data_dir=tmp_path, max_dataset_bytes=1 << 60), 1 << 59)
    assert refused(answer, 503)["needed_bytes"] == 1 << 59
    assert not list(tmp_path.glob("uploads/*"))


@pytest.mark.parametrize("upload_id", [UNKNOWN, "x", "%2E%2E", "..%2F..%2Fsecrets", "upload_", "a%00b"])
def test_an_id_that_no_upload_has_is_not_found(studio: Client, upload_id: str) -> None:
    path = f"{UPLOADS}/{upload_id}"
    answers = [studio.head(path, headers=TUS), send(studio, path, 0, b"x"), studio.delete(path, headers=TUS)]
    assert [answer.status_code for answer in answers] == [404] * 3


def test_a_whole_upload_that_is_no_data_set_is_refused_with_the_row_and_gone(studio: Client, tmp_path: Path) -> None:
    content = ROWS + b'{"prompt": "no answer"}\n'
    path = begun(studio, len(content))
    details = refused(send(studio, path, 0, content))
    assert (details["field"], details["row"]) == ("file", 101)
    assert studio.head(path, headers=TUS).status_code == 404
    assert not [*tmp_path.glob("uploads/*"), *tmp_path.glob("datasets/*")]


def test_an_expected_hash_is_checked_in_the_end(studio: Client) -> None:
    path = begun(studio, sha256="0" * 64)
    assert refused(send(studio, path, 0, ROWS))["field"] == "sha256"
    path = begun(studio, sha256=hashlib.sha256(ROWS).hexdigest(), name="Mine.jsonl")
    dataset_id = send(studio, path, 0, ROWS).headers["Dataset-Id"]
    assert studio.get(f"/api/v1/datasets/{dataset_id}").json()["name"] == "Mine.jsonl"


def test_an_upload_can_be_given_up(studio: Client, tmp_path: Path) -> None:
    path = begun(studio)
    send(studio, path, 0, ROWS[:100])
    assert studio.delete(path, headers=TUS).status_code == 204
    assert studio.head(path, headers=TUS).status_code == 404
    assert not list(tmp_path.glob("uploads/*"))


def aged(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    for path in (*folder.iterdir(), folder):
        os.utime(path, (then, then))


def test_an_upload_that_nobody_goes_on_with_expires(connect: Connect, studio: Client, tmp_path: Path) -> None:
    path = begun(studio)
    folder = tmp_path / "uploads" / path.rsplit("/", 1)[1]
    aged(folder, 23 * 3600)
    assert offset_of(connect(data_dir=tmp_path), path) == 0
    aged(folder, 25 * 3600)
    assert studio.head(path, headers=TUS).status_code == 404
    Uploads(Settings(data_dir=tmp_path)).sweep()
    assert not folder.exists()


def test_sweeping_spares_what_is_being_written(tmp_path: Path) -> None:
    uploads = Uploads(Settings(data_dir=tmp_path))
    running, dead = uploads.begin(None), uploads.begin(None)
    for upload in (running, dead):
        aged(upload.folder, 120)
    os.close(dead._lock)  # pyright: ignore[reportPrivateUsage]  # as the kernel does for a process that was killed
    uploads.sweep()
    assert running.folder.exists() and not dead.folder.exists()
    running.describe(UploadRecord(name="a", file_type=FileType.JSONL, length=1))
    running.close()
    assert running.folder.exists()
