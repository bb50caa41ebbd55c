"""Data sets in an object store and on a hub, read over real sockets from servers on loopback."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import boto3
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from peft_studio.datasets import inspect
from peft_studio.errors import InvalidConfig, ResourceUnavailable
from peft_studio.plan import RowFormat

ROWS = "".join(json.dumps({"prompt": f"Question {n}", "completion": f"Answer {n}"}) + "\n" for n in range(50))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    boto3.client("s3").create_bucket(Bucket="data")
    yield "s3://data"
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def put(name: str, content: str) -> None:
    boto3.client("s3").put_object(Bucket="data", Key=name, Body=content.encode())


def test_an_object_is_read_like_a_file(bucket: str) -> None:
    put("rows.jsonl", ROWS)
    facts = inspect(f"{bucket}/rows.jsonl")
    assert (facts.path, facts.rows, facts.format) == ("s3://data/rows.jsonl", 50, RowFormat.PROMPT_COMPLETION)
    assert facts.bytes == len(ROWS)


def test_an_object_that_changes_has_another_hash(bucket: str) -> None:
    put("rows.jsonl", ROWS)
    first = inspect(f"{bucket}/rows.jsonl")
    put("rows.jsonl", ROWS.replace("Answer 3", "Answer x"))
    assert inspect(f"{bucket}/rows.jsonl").sha256 != first.sha256


@pytest.mark.parametrize("path", ["data/missing.jsonl", "no-such-bucket/rows.jsonl"])
def test_an_object_that_is_not_there_is_named(bucket: str, path: str) -> None:
    with pytest.raises(InvalidConfig, match=path):
        inspect(f"s3://{path}")


def test_a_chained_address_does_not_lead_out_of_the_store(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(ROWS)
    with pytest.raises((InvalidConfig, ResourceUnavailable)):
        inspect(f"{bucket}/x::file://{tmp_path}/rows.jsonl")


def test_a_store_that_does_not_answer_is_said_to_be_unavailable(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ResourceUnavailable, match="could not be fetched"):
        inspect(f"{bucket}/rows.jsonl")


COMMIT = "a" * 40


class DataHub(BaseHTTPRequestHandler):
    """A hub that holds one data set, org/rows, and knows "json" as a data set without an owner."""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        about = {"_id": "1", "id": "org/rows", "sha": COMMIT, "tags": [], "siblings": [{"rfilename": "train.jsonl"}]}
        if "/tree/" in path:
            self.answer([{"type": "file", "oid": "b" * 40, "size": len(ROWS), "path": "train.jsonl"}])
        elif path.startswith("/api/datasets/org/rows"):
            self.answer(about)
        elif path == "/api/datasets/json":
            self.answer(about | {"id": "json"})
        elif path.endswith("/train.jsonl"):
            self.answer(ROWS)
        else:
            missing = "EntryNotFound" if "org/rows" in path else "RepoNotFound"
            self.answer({"error": missing}, 404, missing)

    def answer(self, body: object, status: int = 200, error: str = "") -> None:
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("ETag", f'"{"b" * 40}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if error:
            self.send_header("X-Error-Code", error)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


PROGRAM = """
import json, sys
from peft_studio.datasets import inspect
for name in sys.argv[1:]:
    try:
        print(inspect(name).model_dump_json())
    except Exception as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""


def inspect_apart(home: Path, endpoint: str, *names: str, **environment: str) -> list[dict[str, object] | list[str]]:
    """The libraries read the hub's address once, when they are imported: hence a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names],
        env=os.environ
        | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        | environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_hub_data_set_is_read_online_and_then_from_the_cache(tmp_path: Path) -> None:
    (tmp_path / "private.json").write_text(json.dumps([{"text": "not to be found by the name of a loader"}]))
    server = ThreadingHTTPServer(("127.0.0.1", 0), DataHub)
    Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    facts, missing, loader = inspect_apart(tmp_path, endpoint, "org/rows", "org/missing", "json")
    server.shutdown()
    server.server_close()

    assert isinstance(facts, dict)
    assert (facts["path"], facts["rows"], facts["format"]) == ("org/rows", 50, "prompt_completion")
    assert isinstance(missing, list) and isinstance(loader, list)
    assert missing[0] == "InvalidConfig" and "no data set of that name" in missing[1]
    assert loader[0] == "InvalidConfig" and "owner/name" in loader[1]

    cached, unknown = inspect_apart(tmp_path, endpoint, "org/rows", "org/other", HF_HUB_OFFLINE="1")
    assert cached == facts
    assert isinstance(unknown, list)
    assert unknown[0] == "ResourceUnavailable" and "cannot be reached" in unknown[1]
