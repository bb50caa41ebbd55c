"""Requests that are sent again, with an Idempotency-Key."""

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from litestar.types import Message

from api.app import create_app
from infra.settings import Settings
from peft_studio.config import TrainingConfig
from peft_studio.errors import ResourceUnavailable
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.studio_in_memory import CONFIG, JobsInMemory, KeysInMemory, Submitted

PATH = "/api/v1/jobs"
JOB = {"config": CONFIG}


class ForgetfulJobs(JobsInMemory):
    """Jobs that do not recognise a repeated key themselves, and take a while."""

    async def submit(
        self,
        config: TrainingConfig,
        *,
        idempotency_key: str | None = None,
        parent_job_id: str | None = None,
        key_id: str | None = None,
    ) -> Submitted:
        await asyncio.sleep(0.05)
        return await super().submit(config, parent_job_id=parent_job_id)


@pytest.fixture
def jobs() -> JobsInMemory:
    return ForgetfulJobs()


def post(client: Client, key: str, body: Any = JOB, path: str = PATH, **headers: str) -> Any:
    return client.post(path, json=body, headers={"Idempotency-Key": key, **headers})


def kept(tmp_path: Path) -> list[Path]:
    return list(tmp_path.glob("data/idempotency/*"))


def test_a_repeated_request_gets_the_first_answer_byte_for_byte(client: Client, jobs: JobsInMemory) -> None:
    first, again = post(client, "k"), post(client, "k")
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again.headers["Content-Type"] == first.headers["Content-Type"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert len(jobs.jobs) == 1


def test_repeated_requests_count_like_all_others(client: Client) -> None:
    left = [int(post(client, "k").headers["RateLimit-Remaining"]) for _ in range(3)]
    assert left == [left[0], left[0] - 1, left[0] - 2]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PATH, {"config": CONFIG | {"rank": 4}}),
        (PATH + "?x=1", JOB),
        (PATH + "/job_" + "0" * 32 + "/cancel", JOB),
    ],
)
def test_a_key_that_was_used_for_another_request_is_refused(
    client: Client, jobs: JobsInMemory, path: str, body: Any
) -> None:
    post(client, "k")
    answer = post(client, "k", body, path)
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "CONFLICT"
    assert answer.json()["error"]["details"] == {"field": "Idempotency-Key"}
    assert len(jobs.jobs) == 1


def test_the_same_key_of_another_caller_is_another_key(client: Client, jobs: JobsInMemory) -> None:
    first = post(client, "k")
    other = post(client, "k", Authorization="Bearer rules")
    assert first.json()["job_id"] != other.json()["job_id"]
    assert len(jobs.jobs) == 2


def test_of_many_at_once_one_is_carried_out_and_all_get_its_answer(client: Client, jobs: JobsInMemory) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: post(client, "k"), range(20)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 19
    assert len(jobs.jobs) == 1


def test_answers_outlive_the_process(connect: Connect, jobs: JobsInMemory) -> None:
    first, again = post(connect(), "k"), post(connect(), "k")
    assert again.content == first.content
    assert len(jobs.jobs) == 1


def test_answers_are_forgotten_after_a_day_and_removed(connect: Connect, jobs: JobsInMemory, tmp_path: Path) -> None:
    post(connect(), "k")
    post(connect(), "young")
    old = min(kept(tmp_path), key=lambda path: path.stat().st_mtime_ns)
    yesterday = old.stat().st_mtime - 24 * 3600 - 1
    os.utime(old, (yesterday, yesterday))
    leftover = old.with_name(".half-written.json.1")
    leftover.write_bytes(b"{")
    os.utime(leftover, (yesterday, yesterday))
    fresh = connect()
    assert "Idempotency-Replayed" not in post(fresh, "k").headers
    assert len(jobs.jobs) == 3
    assert "Idempotency-Replayed" in post(fresh, "young").headers
    assert len(kept(tmp_path)) == 2


def test_a_failure_that_passes_is_tried_again(client: Client, jobs: JobsInMemory) -> None:
    jobs.trouble = ResourceUnavailable("Away.")
    assert post(client, "k").status_code == 503
    jobs.trouble = RuntimeError("odd")
    assert post(client, "k").status_code == 500
    jobs.trouble = None
    assert post(client, "k").status_code == 201


def test_too_many_requests_and_a_role_that_is_too_small_are_no_answers(connect: Connect, tmp_path: Path) -> None:
    client = connect(requests_per_minute=1)
    client.get(PATH)
    assert post(client, "k").status_code == 429
    assert post(client, "k", Authorization="Bearer reads").status_code == 403
    assert kept(tmp_path) == []


def test_a_request_that_is_wrong_is_refused_with_the_same_words_again(client: Client) -> None:
    first, again = (post(client, "k", {"config": {}}) for _ in range(2))
    assert (first.status_code, again.status_code) == (400, 400)
    assert again.content == first.content


def test_an_answer_that_cannot_be_kept_is_given_all_the_same(client: Client, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "idempotency").touch()
    assert post(client, "k").status_code == 201


def test_a_kept_answer_that_is_damaged_counts_for_nothing(client: Client, tmp_path: Path) -> None:
    post(client, "k")
    (path,) = kept(tmp_path)
    path.write_bytes(path.read_bytes()[:40])
    assert "Idempotency-Replayed" not in post(client, "k").headers
    assert "Idempotency-Replayed" in post(client, "k").headers


def test_no_request_and_no_key_is_on_disk(client: Client, tmp_path: Path) -> None:
    post(client, "swordfish", {"config": CONFIG | {"test_prompt": "hunter2"}})
    (path,) = kept(tmp_path)
    stored = path.read_text() + path.name
    assert "hunter2" not in stored and "swordfish" not in stored and "writes" not in stored


def test_a_new_keys_secret_is_not_kept_and_its_request_not_carried_out_twice(connect: Connect, tmp_path: Path) -> None:
    client = connect("rules")
    secret = post(client, "k", {"name": "new"}, "/api/v1/keys").json()["key"]
    again = post(client, "k", {"name": "new"}, "/api/v1/keys")
    assert again.status_code == 409
    assert again.json()["error"]["details"] == {"field": "Idempotency-Key"}
    assert "held a secret" in again.json()["error"]["message"]
    assert all(secret not in path.read_text() for path in kept(tmp_path))
    names = [key["name"] for key in client.get("/api/v1/keys").json()["keys"]]
    assert names.count("new") == 1


def test_every_ticket_is_a_new_one(client: Client, tmp_path: Path) -> None:
    tickets = {post(client, "k", None, "/api/v1/tickets").json()["ticket"] for _ in range(2)}
    assert len(tickets) == 2
    assert kept(tmp_path) == []


def test_the_domain_is_given_the_key_made_one_with_its_caller(connect: Connect) -> None:
    """So that what was done, but not kept before the process was killed, is recognised."""
    given: list[str | None] = []

    class Noting(JobsInMemory):
        async def submit(
            self,
            config: TrainingConfig,
            *,
            idempotency_key: str | None = None,
            parent_job_id: str | None = None,
            key_id: str | None = None,
        ) -> Submitted:
            given.append(idempotency_key)
            raise ResourceUnavailable("Killed.")

    client = connect(jobs=Noting())
    for key, caller in (("k", "writes"), ("k", "writes"), ("k", "rules"), ("other", "writes")):
        post(client, key, Authorization=f"Bearer {caller}")
    client.post(PATH, json=JOB)
    assert given[0] == given[1] and given[4] is None
    assert len(set(given)) == 4
    assert given[0] != "k"


@pytest.mark.anyio
async def test_half_a_body_is_not_taken_for_a_whole_one(jobs: JobsInMemory, studio_settings: Settings) -> None:
    app = create_app(jobs, KeysInMemory(), studio_settings)
    arriving: AsyncIterator[Any] = _messages(
        {"type": "http.request", "body": b'{"config": {}}', "more_body": True}, {"type": "http.disconnect"}
    )
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    headers = {"authorization": "Bearer writes", "idempotency-key": "k", "content-type": "application/json"}
    scope: Any = {
        "type": "http",
        "method": "POST",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await app(scope, lambda: anext(arriving), send)
    assert sent[0]["type"] == "http.response.start" and sent[0]["status"] == 400
    assert not jobs.jobs
    assert not list(studio_settings.data_dir.glob("idempotency/*"))


async def _messages(*messages: Any) -> AsyncIterator[Any]:
    for message in messages:
        yield message


def test_an_upload_that_is_repeated_is_read_to_its_end_and_stored_once(connect: Connect, tmp_path: Path) -> None:
    client = connect()
    rows = b'{"text": "hello"}\n' * 10_000
    headers = {"Idempotency-Key": "k", "Content-Type": "application/octet-stream"}
    first, again = (client.post("/api/v1/datasets?name=rows.jsonl", content=rows, headers=headers) for _ in range(2))
    assert (first.status_code, again.content) == (201, first.content)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(client.get("/api/v1/datasets").json()["datasets"]) == 1
    longer = client.post("/api/v1/datasets?name=rows.jsonl", content=rows + rows, headers=headers)
    assert longer.status_code == 409


def test_a_key_of_one_resumable_upload_is_refused_for_another(client: Client) -> None:
    def begin(length: int) -> Any:
        headers = {
            "Upload-Length": str(length),
            "Upload-Metadata": "filename cm93cy5qc29ubA==",
            "Tus-Resumable": "1.0.0",
        }
        return client.post("/api/v1/datasets/uploads", headers=headers | {"Idempotency-Key": "k"})

    first, again, other = begin(100), begin(100), begin(200)
    assert first.status_code == 201
    assert again.headers["Location"] == first.headers["Location"]
    assert other.status_code == 409


def test_a_form_is_known_again_whatever_its_boundary(client: Client, tmp_path: Path) -> None:
    def send(boundary: str, rows: str, chunk: int) -> Any:
        part = 'Content-Disposition: form-data; name="file"; filename="rows.jsonl"\r\n\r\n'
        body = f"--{boundary}\r\n{part}{rows}\r\n--{boundary}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Idempotency-Key": "k"}
        parts = (body[start : start + chunk] for start in range(0, len(body), chunk))
        return client.post("/api/v1/datasets", content=parts, headers=headers)

    rows = '{"text": "hello"}\n' * 50
    first = send("a" * 30, rows, 10_000)
    assert first.status_code == 201, first.text
    for boundary, chunk in (("b" * 30, 7), ("a" * 40, 31), ("c" * 30, 64)):
        assert send(boundary, rows, chunk).content == first.content
    assert send("a" * 30, rows.replace("hello", "hullo"), 10_000).status_code == 409
    assert len(client.get("/api/v1/datasets").json()["datasets"]) == 1
