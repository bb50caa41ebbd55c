"""Who may do what, and how much of it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from litestar.types import Message

from api.limits import OpenSockets, RequestLog
from peft_studio.errors import RateLimitExceeded
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.studio_in_memory import CONFIG, JobsInMemory


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", "Bearer unknown", "Basic writes", "writes", "Bearer writes x"]
)
def test_without_a_valid_key_nothing_is_told(connect: Connect, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    for method, path in [("GET", "/jobs"), ("POST", "/jobs"), ("GET", "/jobs/job_0"), ("POST", "/jobs/job_0/cancel")]:
        answer = connect(None).request(method, "/api/v1" + path, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "AUTHENTICATION_FAILED"
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert "RateLimit-Limit" not in answer.headers


def test_the_scheme_is_written_in_any_case(connect: Connect) -> None:
    assert connect(None).get("/api/v1/jobs", headers={"Authorization": "bearer reads"}).status_code == 200


def test_health_and_documentation_need_no_key(connect: Connect) -> None:
    for path in ("/healthz", "/readyz", "/docs", "/api/v1/openapi.json"):
        assert connect(None).get(path).status_code == 200


def test_a_key_that_reads_may_not_change_anything(connect: Connect, jobs: JobsInMemory) -> None:
    client, job = connect("reads"), jobs.add()
    assert client.get(f"/api/v1/jobs/{job.job_id}").status_code == 200
    for path in ("/jobs", f"/jobs/{job.job_id}/cancel"):
        answer = client.post("/api/v1" + path, json={"config": CONFIG})
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "PERMISSION_DENIED"
    assert list(jobs.jobs.values()) == [job]


@pytest.mark.parametrize("key", ["writes", "rules"])
def test_keys_that_write_may(connect: Connect, key: str) -> None:
    assert connect(key).post("/api/v1/jobs", json={"config": CONFIG}).status_code == 201


def test_requests_are_counted_for_each_key(connect: Connect) -> None:
    client = connect(requests_per_minute=3)
    left = [client.get("/api/v1/jobs").headers["RateLimit-Remaining"] for _ in range(3)]
    assert left == ["2", "1", "0"]
    refused = client.get("/api/v1/jobs")
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "RATE_LIMIT_EXCEEDED"
    assert refused.headers["RateLimit-Limit"] == "3"
    assert refused.headers["RateLimit-Remaining"] == "0"
    assert 50 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["Retry-After"] == refused.headers["RateLimit-Reset"]
    assert client.get("/api/v1/jobs", headers={"Authorization": "Bearer reads"}).status_code == 200
    assert client.get("/healthz").status_code == 200


def test_errors_count_and_say_what_is_left(connect: Connect) -> None:
    client = connect(requests_per_minute=10)
    for path in ("/jobs/job_0", "/jobs?limit=0"):
        client.get("/api/v1" + path)
    answer = client.post("/api/v1/jobs", json={}, headers={"Authorization": "Bearer reads"})
    assert answer.status_code == 403
    assert answer.headers["RateLimit-Remaining"] == "9"
    assert client.get("/api/v1/jobs").headers["RateLimit-Remaining"] == "7"


def test_the_limit_holds_for_every_minute() -> None:
    log = RequestLog(per_minute=2)
    quotas = [log.admit("key", now) for now in (0.0, 30.0, 59.0, 60.0, 61.0, 90.0)]
    assert [quota.admitted for quota in quotas] == [True, True, False, True, False, True]
    assert [quota.reset for quota in quotas] == [60, 30, 1, 30, 29, 30]
    assert log.admit("other", 90.0).remaining == 1


def test_sockets_are_counted_for_each_key_and_given_back() -> None:
    sockets = OpenSockets(per_key=1)
    with sockets.held("a"), sockets.held("b"), pytest.raises(RateLimitExceeded), sockets.held("a"):
        pass
    with sockets.held("a"):
        pass


async def _post(client: Client, headers: dict[str, str], body: AsyncIterator[bytes]) -> tuple[int, int]:
    """Send a body of any size straight to the application; return the status, and the bytes that it asked for."""
    taken, statuses = 0, list[int]()

    async def receive() -> Any:
        nonlocal taken
        part = await anext(body)
        taken += len(part)
        return {"type": "http.request", "body": part, "more_body": True}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope: Any = {
        "type": "http",
        "method": "POST",
        "path": "/api/v1/jobs",
        "raw_path": b"/api/v1/jobs",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    await client.app(scope, receive, send)
    return statuses[0], taken


async def _endless() -> AsyncIterator[bytes]:
    while True:
        yield b" " * 65536


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "status", "most"),
    [
        ({"Authorization": "Bearer writes", "Content-Length": "200000000"}, 413, 0),
        ({"Authorization": "Bearer writes"}, 413, 200_000),
        ({"Authorization": "Bearer writes", "Content-Type": "text/plain"}, 415, 0),
        ({"Authorization": "Bearer reads"}, 403, 0),
        ({}, 401, 0),
    ],
)
async def test_a_body_that_is_refused_is_not_read(
    connect: Connect, headers: dict[str, str], status: int, most: int
) -> None:
    client = connect(max_body_bytes=100_000)
    assert (await _post(client, headers, _endless()))[0] == status
    assert (await _post(client, headers, _endless()))[1] <= most


def test_a_body_too_large_is_told_how_large_it_may_be(connect: Connect) -> None:
    answer = connect(max_body_bytes=1000).post("/api/v1/jobs", json={"config": CONFIG, "padding": "x" * 1000})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "PAYLOAD_TOO_LARGE"
    assert answer.json()["error"]["details"] == {"limit_bytes": 1000}
