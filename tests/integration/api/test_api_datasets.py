"""Data sets over HTTP: uploaded in one go, listed, deleted; whatever is wrong with one is told, and nothing is kept."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from peft_studio.config import TrainingConfig
from peft_studio.jobs import JobStatus
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.studio_in_memory import CONFIG, JobsInMemory

PAIR = {"prompt": "Hello", "completion": "World"}
ROWS = b"".join(json.dumps({**PAIR, "prompt": f"Hello {n}"}).encode() + b"\n" for n in range(40))
UNKNOWN = "dataset_" + "0" * 32


@pytest.fixture
def studio(connect: Connect, tmp_path: Path) -> Client:
    return connect(data_dir=tmp_path)


def upload(client: Client, content: Any = ROWS, name: str = "rows.jsonl", **parameters: str) -> Any:
    return client.post("/api/v1/datasets", content=content, params={"name": name, **parameters})


def form(client: Client, content: bytes = ROWS, name: str = "rows.jsonl", **fields: str) -> Any:
    return client.post("/api/v1/datasets", files={"file": (name, content)}, data=fields)


def refused(answer: Any, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return answer.json()["error"]["details"]


def left_behind(data_dir: Path) -> list[Path]:
    """What is on disk of uploads and data sets."""
    return [path for name in ("uploads", "datasets") for path in (data_dir / name).glob("*")]


@pytest.mark.parametrize("send", [upload, form])
def test_an_upload_becomes_a_data_set(studio: Client, tmp_path: Path, send: Any) -> None:
    answer = send(studio)
    assert answer.status_code == 201, answer.text
    dataset = answer.json()
    folder = tmp_path / "datasets" / dataset["dataset_id"]
    assert dataset == {
        "dataset_id": dataset["dataset_id"],
        "name": "rows.jsonl",
        "format": "prompt_completion",
        "file_type": "jsonl",
        "rows": 40,
        "size_bytes": len(ROWS),
        "sha256": hashlib.sha256(ROWS).hexdigest(),
        "characters": sum(len(f"Hello {n}World") for n in range(40)),
        "created_at": dataset["created_at"],
        "path": str(folder / "rows.jsonl"),
    }
    assert Path(dataset["path"]).read_bytes() == ROWS
    assert sorted(path.name for path in folder.iterdir()) == ["dataset.json", "rows.jsonl"]
    assert list((tmp_path / "uploads").iterdir()) == []
    assert studio.get(f"/api/v1/datasets/{dataset['dataset_id']}").json() == dataset


def test_every_format_is_taken(studio: Client) -> None:
    for name, content in {
        "a.json": json.dumps([PAIR]).encode(),
        "a.csv": b"prompt,completion\nHello,World\n",
        "a.ndjson": json.dumps(PAIR).encode(),
        "A.JSONL": json.dumps(PAIR).encode(),
    }.items():
        assert upload(studio, content, name).json()["rows"] == 1, name


def test_a_form_may_give_another_name_and_the_hash_that_is_expected(studio: Client) -> None:
    answer = form(studio, name="blob.csv", content=b"text\nHello\n", name_="ignored")
    assert refused(answer)["field"] == "name_"
    sha256 = hashlib.sha256(ROWS).hexdigest()
    answer = studio.post(
        "/api/v1/datasets", files={"file": ("blob", ROWS)}, data={"name": "mine.jsonl", "sha256": sha256.upper()}
    )
    assert (answer.json()["name"], answer.json()["file_type"]) == ("mine.jsonl", "jsonl")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd.jsonl", "passwd.jsonl"),
        ("C:\\data\\rows.jsonl", "rows.jsonl"),
        ("a\0b\n\u202ec.jsonl", "abc.jsonl"),
        ("Grüße 🌍.jsonl", "Grüße 🌍.jsonl"),
        ("x" * 10_000 + ".jsonl", "x" * 194 + ".jsonl"),
        ("....jsonl", "....jsonl"),
    ],
)
def test_a_name_is_a_label_and_never_a_path(studio: Client, tmp_path: Path, name: str, shown: str) -> None:
    dataset = upload(studio, name=name).json()
    assert dataset["name"] == shown
    assert Path(dataset["path"]) == tmp_path / "datasets" / dataset["dataset_id"] / "rows.jsonl"


def rows_with_a_hole() -> bytes:
    rows = [PAIR] * 36 + [{"prompt": "Hello"}, PAIR]
    return b"\n".join(json.dumps(row).encode() for row in rows)


@pytest.mark.parametrize(
    ("content", "name", "said", "row"),
    [
        (b"", "a.jsonl", "it is empty", None),
        (b"\n\n", "a.jsonl", "no rows", None),
        (b"[]", "a.json", "no rows", None),
        (b'{"text": "\xff"}\n', "a.jsonl", "not UTF-8 at byte 11", 1),
        (rows_with_a_hole(), "a.jsonl", "has 'prompt' but no 'completion'", 37),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "a.jsonl", "a PNG image", None),
        (b"PAR1" + b"\0" * 50, "a.parquet", "not a whole Parquet file", None),
        (b'[{"text": "a"}', "a.json", "not JSON", None),
        (json.dumps(PAIR).encode() + b"\nthis is no row", "a.jsonl", "not JSON", 2),
    ],
)
@pytest.mark.parametrize("send", [upload, form])
def test_a_file_that_is_no_data_set_is_refused_with_the_row_and_not_kept(
    studio: Client, tmp_path: Path, send: Any, content: bytes, name: str, said: str, row: int | None
) -> None:
    details = refused(send(studio, content, name))
    assert details["field"] == "file"
    assert said in details["issue"]
    assert details.get("row") == row
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("name", ["", "rows", "rows.txt", "rows.jsonl.gz", ".jsonl", "jsonl"])
def test_a_name_that_does_not_say_what_the_file_is_is_refused(studio: Client, tmp_path: Path, name: str) -> None:
    assert refused(upload(studio, name=name))["field"] == "name"
    assert refused(studio.post("/api/v1/datasets", content=ROWS))["issue"] == "Required"
    assert left_behind(tmp_path) == []


def test_what_is_not_what_was_hashed_is_refused(studio: Client, tmp_path: Path) -> None:
    assert refused(upload(studio, sha256="0" * 64))["field"] == "sha256"
    assert refused(form(studio, sha256="no hash"))["field"] == "sha256"
    assert left_behind(tmp_path) == []


BOUNDARY = "multipart/form-data; boundary=limit"
PART = b'--limit\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n' + ROWS


@pytest.mark.parametrize(
    ("kind", "body", "status", "field"),
    [
        (BOUNDARY, PART, 400, "body"),
        (BOUNDARY, PART + b"\r\n--limit--\r\n" * 0 + b"\r\n--limi", 400, "body"),
        (BOUNDARY, b"--limit--\r\n", 400, "file"),
        (BOUNDARY, b"nothing of that kind", 400, "body"),
        (BOUNDARY, PART + b"\r\n" + PART + b"\r\n--limit--\r\n", 400, "file"),
        (BOUNDARY, PART.replace(b'"file"', b'"files"') + b"\r\n--limit--\r\n", 400, "files"),
        (BOUNDARY, PART.replace(b"a.jsonl", b"a.exe") + b"\r\n--limit--\r\n", 400, "name"),
        ("multipart/form-data", PART + b"\r\n--limit--\r\n", 415, None),
    ],
)
def test_a_form_that_is_cut_off_or_not_a_form_is_refused_and_not_kept(
    studio: Client, tmp_path: Path, kind: str, body: bytes, status: int, field: str | None
) -> None:
    answer = studio.post("/api/v1/datasets", content=body, headers={"Content-Type": kind})
    assert refused(answer, status).get("field") == field
    assert left_behind(tmp_path) == []


def test_size_is_limited_by_a_setting_of_its_own(connect: Connect, tmp_path: Path) -> None:
    client = connect(data_dir=tmp_path, max_dataset_bytes=len(ROWS) - 1, max_body_bytes=1)
    chunked: Iterator[bytes] = (ROWS[n : n + 100] for n in range(0, len(ROWS), 100))
    for answer in (upload(client), form(client), upload(client, chunked)):
        assert refused(answer, 413)["limit_bytes"] >= len(ROWS) - 1
    assert left_behind(tmp_path) == []
    assert upload(client, ROWS[: len(ROWS) // 2].rsplit(b"\n", 1)[0]).status_code == 201


def test_a_disk_without_room_is_told(connect: Connect, tmp_path: Path) -> None:
    answer = upload(connect(data_dir=tmp_path, disk_reserve_bytes=1 << 60))
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "RESOURCE_UNAVAILABLE"
    assert "disk" in answer.json()["error"]["message"]
    assert left_behind(tmp_path) == []


def test_data_sets_are_listed_newest_first_page_by_page(studio: Client) -> None:
    assert studio.get("/api/v1/datasets").json() == {"datasets": [], "next_cursor": None}
    ids = [upload(studio, name=f"{n}.jsonl").json()["dataset_id"] for n in range(5)]
    assert len(set(ids)) == 5  # the same file five times
    found: list[str] = []
    cursor = None
    for _ in range(3):
        page = studio.get("/api/v1/datasets", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        found += [dataset["dataset_id"] for dataset in page["datasets"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert sorted(found, reverse=True) == found
    assert sorted(found) == sorted(ids)


@pytest.mark.parametrize("cursor", ["x", "../..", UNKNOWN + "0"])
def test_what_is_no_cursor_is_refused(studio: Client, cursor: str) -> None:
    assert refused(studio.get("/api/v1/datasets", params={"cursor": cursor}))["field"] == "cursor"


@pytest.mark.parametrize("dataset_id", [UNKNOWN, "x", "..", "../../secrets", "dataset_", "dataset_" + "G" * 32, "a\0b"])
def test_an_id_that_nothing_has_is_not_found(studio: Client, dataset_id: str) -> None:
    upload(studio)
    path = f"/api/v1/datasets/{quote(dataset_id, safe='').replace('..', '%2E%2E')}"
    for answer in (studio.get(path), studio.delete(path), studio.get(f"{path}/preview?base_model=m")):
        assert answer.status_code in (404, 405)
    assert len(studio.get("/api/v1/datasets").json()["datasets"]) == 1


def test_a_data_set_is_deleted_unless_a_job_needs_it(studio: Client, jobs: JobsInMemory, tmp_path: Path) -> None:
    dataset = upload(studio).json()
    path = f"/api/v1/datasets/{dataset['dataset_id']}"
    for status in (JobStatus.PENDING, JobStatus.RUNNING):
        for used in (dataset["dataset_id"], dataset["path"]):
            job = jobs.add(config=TrainingConfig.model_validate(CONFIG | {"dataset_path": used}), status=status)
            assert refused(studio.delete(path), 409)["job_id"] == job.job_id
            jobs.jobs[job.job_id] = job.model_copy(update={"status": JobStatus.COMPLETED})
    assert studio.delete(path).json() == {"success": True, "dataset_id": dataset["dataset_id"]}
    assert studio.delete(path).status_code == 404
    assert left_behind(tmp_path) == []


def test_a_key_that_may_only_read_uploads_and_deletes_nothing(connect: Connect, studio: Client, tmp_path: Path) -> None:
    dataset_id = upload(studio).json()["dataset_id"]
    reader = connect("reads", data_dir=tmp_path)
    assert upload(reader).status_code == 403
    assert reader.delete(f"/api/v1/datasets/{dataset_id}").status_code == 403
    assert reader.get(f"/api/v1/datasets/{dataset_id}").status_code == 200


@pytest.mark.parametrize("columns", ["prompt", "[1]", '{"prompt": 1}', '{"nothing": "question"}', "[" * 4000])
def test_columns_of_a_preview_are_named_as_in_a_job(studio: Client, columns: str) -> None:
    dataset_id = upload(studio).json()["dataset_id"]
    query = {"base_model": "m", "columns": columns}
    assert refused(studio.get(f"/api/v1/datasets/{dataset_id}/preview", params=query))["field"] == "columns"


def test_what_becomes_of_long_rows_in_a_preview_is_one_of_three(studio: Client) -> None:
    dataset_id = upload(studio).json()["dataset_id"]
    query = {"base_model": "m", "long_rows": "fold"}
    assert refused(studio.get(f"/api/v1/datasets/{dataset_id}/preview", params=query))["field"] == "long_rows"
