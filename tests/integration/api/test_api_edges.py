"""What comes from outside and was not foreseen: floods, garbage; every error code of the contract over the wire."""

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar.exceptions import WebSocketDisconnect

from api.app import create_app
from api.limits import MOST_CALLERS, RequestLog, Shared
from api.request_protocol import MOST_HEAD_BYTES, RequestProtocol
from infra.credentials import CredentialsInMemory
from infra.serving.records import DeploymentsInMemory
from infra.settings import Settings
from peft_studio.errors import InsufficientCredits, ResourceUnavailable
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.studio_in_memory import CONFIG, JobsInMemory, KeysInMemory
from tests.loopback import on_loopback
from tests.waiting import until

JOBS = "/api/v1/jobs"
WRONG = {"config": CONFIG | {"learning_rate": 1}}


@contextmanager
def served(folder: Path, jobs: JobsInMemory | None, **settings: Any) -> Iterator[str]:
    """The API on a real port, with a studio in memory behind it or, where ``jobs`` is None, with nothing behind it."""
    given = Settings.model_validate({"data_dir": folder, "database_url": None, **settings})
    app = create_app(jobs, KeysInMemory(), given, DeploymentsInMemory(), credentials=CredentialsInMemory())
    with on_loopback(app, http=RequestProtocol) as url:
        yield url


def close_of(client: Client, path: str) -> tuple[int, str]:
    """Open a WebSocket that is closed before anything is said; return the code and the reason."""
    with client.websocket_connect(path) as socket, pytest.raises(WebSocketDisconnect) as closed:
        socket.receive_json(timeout=10)
    return closed.value.code, closed.value.detail


@pytest.mark.parametrize(
    ("code", "status", "method", "path", "body", "key", "trouble"),
    [
        ("INVALID_CONFIG", 400, "POST", JOBS, WRONG, "writes", None),
        ("AUTHENTICATION_FAILED", 401, "GET", JOBS, None, "nobody's", None),
        ("INSUFFICIENT_CREDITS", 402, "POST", JOBS, {"config": CONFIG}, "writes", InsufficientCredits()),
        ("JOB_NOT_FOUND", 404, "GET", JOBS + "/job_abc123", None, "writes", None),
        ("PLATFORM_NOT_CONNECTED", 409, "GET", "/api/v1/resources/runpod/gpu/pricing", None, "writes", None),
        ("RATE_LIMIT_EXCEEDED", 429, "GET", JOBS, None, "reads", None),
        ("INTERNAL_ERROR", 500, "POST", JOBS, {"config": CONFIG}, "writes", RuntimeError("hunter2")),
        ("RESOURCE_UNAVAILABLE", 503, "GET", JOBS, None, "writes", None),
    ],
)
def test_every_code_of_the_contract_is_met_over_the_wire(
    tmp_path: Path, code: str, status: int, method: str, path: str, body: Any, key: str, trouble: Exception | None
) -> None:
    jobs = None if code == "RESOURCE_UNAVAILABLE" else JobsInMemory(trouble=trouble)
    with served(tmp_path, jobs, requests_per_minute=1) as url, httpx.Client(base_url=url, timeout=20) as client:
        if code == "RATE_LIMIT_EXCEEDED":
            client.get(JOBS, headers={"Authorization": f"Bearer {key}"})
        answer = client.request(method, path, json=body, headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/json"
    error = answer.json()["error"]
    assert error.keys() == {"code", "message", "details"}
    assert error["code"] == code
    assert error["message"] and "hunter2" not in answer.text


def test_whoever_tries_keys_is_answered_less_and_less_and_locks_nobody_out(connect: Connect) -> None:
    keys = KeysInMemory()
    client = connect("wrong", keys=keys, wrong_keys_per_minute=5)
    statuses = [client.get(JOBS, headers={"Authorization": f"Bearer ps_{n}"}).status_code for n in range(20)]
    assert statuses == [401] * 5 + [429] * 15
    refused = client.get(JOBS)
    assert refused.json()["error"]["code"] == "RATE_LIMIT_EXCEEDED"
    assert 50 <= int(refused.headers["Retry-After"]) <= 60
    assert keys.searches == 5
    assert client.get(JOBS, headers={"Authorization": "Bearer reads"}).status_code == 200
    assert close_of(client, "/ws/jobs/job_0")[0] == 4429
    assert client.get("/healthz").status_code == 200


def test_wrong_keys_and_tickets_on_sockets_count_too(connect: Connect) -> None:
    client, codes = connect(None, wrong_keys_per_minute=2), list[int]()
    for query in ("ticket=a", "ticket=b", "ticket=c"):
        codes.append(close_of(client, f"/ws/jobs/job_0?{query}")[0])
    assert codes == [4401, 4401, 4429]


def test_callers_are_forgotten_when_they_are_silent_or_too_many() -> None:
    log = RequestLog(per_minute=2)
    for number in range(MOST_CALLERS + 500):
        log.admit(f"address {number}", 0.0)
    assert len(log._times) == MOST_CALLERS
    log.admit("late", 61.0)
    assert list(log._times) == ["late"]


@pytest.mark.anyio
async def test_what_many_ask_at_once_is_found_out_once() -> None:
    asked = 0

    async def find_out() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)
        if asked == 2:
            raise ResourceUnavailable("Away.")

    shared = Shared(find_out)
    await asyncio.gather(*(shared() for _ in range(50)))
    assert asked == 1
    found = await asyncio.gather(*(shared() for _ in range(50)), return_exceptions=True)
    assert asked == 2 and all(isinstance(error, ResourceUnavailable) for error in found)


@pytest.mark.parametrize(
    ("path", "statuses"),
    [
        ("/api/v1/jobs/%00", {404}),
        ("/api/v1/jobs/job_%00", {404}),
        ("/api/v1/jobs/%ff%fe", {404}),
        ("/api/v1/jobs/job_" + "%F0%9F%98%80" * 200, {404}),
        ("/api/v1/jobs/..%2f..%2fetc%2fpasswd", {404}),
        ("/api/v1/adapters/..%2f..%2fetc", {404}),
        ("/api/v1/datasets/%2e%2e", {404}),
        ("/api/v1/deployments/%00", {404}),
        ("/api/v1/experiments/%00", {404}),
        ("/api/v1/keys/%00", {403, 404, 405}),
        ("/%", {404}),
        ("/%zz/%", {404}),
        ("/api/v1/jobs?limit=%ff", {400}),
        ("/api/v1/jobs?limit=1&limit=2", {400}),
        ("/api/v1/jobs?provider=%ff%00", {200, 400}),
        ("/api/v1/jobs?cursor=%00", {400}),
        ("/api/v1/jobs?%ff=%ff&&&=&a", {200}),
        ("/api/v1/jobs?limit=" + "9" * 5000, {400}),
    ],
)
def test_garbage_in_addresses_is_answered_like_all_else(client: Client, path: str, statuses: set[int]) -> None:
    answer = client.get(path)
    assert answer.status_code in statuses, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    if answer.status_code >= 400:
        assert answer.json()["error"].keys() == {"code", "message", "details"}


@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "DELETE"])
def test_a_method_that_is_not_taken_is_told_which_are(client: Client, method: str) -> None:
    answer = client.request(method, JOBS)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS, POST"
    assert answer.json()["error"]["code"] == "METHOD_NOT_ALLOWED"


def test_options_are_told_to_callers(client: Client, connect: Connect) -> None:
    answer = client.options(JOBS)
    assert (answer.status_code, answer.headers["Allow"]) == (204, "GET, HEAD, OPTIONS, POST")
    assert connect(None).options(JOBS).status_code == 401


@pytest.mark.parametrize("path", ["/healthz", JOBS, JOBS + "/job_0", "/api/v1/keys", "/docs", "/api/v1/openapi.json"])
def test_head_is_answered_as_get_is_without_the_body(client: Client, path: str) -> None:
    whole, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    changing = {"ratelimit-remaining", "ratelimit-reset"}
    assert {item for item in head.headers.items() if item[0] not in changing} == {
        item for item in whole.headers.items() if item[0] not in changing
    }


def test_head_of_what_can_only_be_posted_is_refused(client: Client) -> None:
    answer = client.head(JOBS + "/job_0/cancel")
    assert (answer.status_code, answer.headers["Allow"], answer.content) == (405, "OPTIONS, POST", b"")


def test_head_of_a_stream_ends_with_its_head(tmp_path: Path) -> None:
    jobs = JobsInMemory()
    job_id = jobs.add().job_id  # waits, so that its stream would not end for a long time
    key = {"Authorization": "Bearer writes"}
    with served(tmp_path, jobs) as url, httpx.Client(base_url=url, headers=key, timeout=10) as client:
        for _ in range(2):
            answer = client.head(f"{JOBS}/{job_id}/events")
            assert (answer.status_code, answer.content) == (200, b"")
            assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert client.get("/healthz").status_code == 200  # over the same connection
        until(lambda: jobs.followers == 0, 10)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=null", "status"),
        ("status=NULL", "status"),
        ("status=running&status=failed", "status"),
        ("limit=1&limit=2", "limit"),
        ("limit=null", "limit"),
        ("provider=local&provider=local", "provider"),
    ],
)
def test_a_parameter_that_is_there_twice_or_null_is_refused_by_name(client: Client, query: str, field: str) -> None:
    answer = client.get(f"{JOBS}?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["field"] == field


def test_a_project_may_be_called_null(client: Client, jobs: JobsInMemory) -> None:
    jobs.add()
    assert client.get(f"{JOBS}?project=null").json()["total"] == 0


@pytest.mark.parametrize("path", ["/", "/ws", "/ws/nothing", "/ws/jobs", "/ws/jobs/a/b", "/api/v1/jobs", "/%00%ff"])
def test_a_socket_to_no_address_is_told_so(client: Client, path: str) -> None:
    assert close_of(client, path) == (4404, "NOT_FOUND: There is no WebSocket at this address.")


@pytest.mark.parametrize("query", ["after=x", "after=-1", "after=" + "9" * 5000, "after=1&after=2", "after=%00"])
def test_a_cursor_that_is_none_closes_the_socket(client: Client, query: str) -> None:
    assert close_of(client, f"/ws/jobs/job_0?{query}")[0] in (4400, 4404)


@pytest.mark.parametrize("name", ["key", "api_key", "token", "access_token", "API_KEY"])
@pytest.mark.parametrize("secret", ["writes", "nobody's"])
def test_a_key_in_an_address_is_refused_with_the_reason(
    client: Client, caplog: pytest.LogCaptureFixture, name: str, secret: str
) -> None:
    caplog.set_level("WARNING")
    answer = client.get(f"{JOBS}?{name}={secret}")
    assert answer.status_code == 401
    assert "must not be in an address" in answer.json()["error"]["message"]
    code, reason = close_of(client, f"/ws/jobs/job_0?{name}={secret}")
    assert code == 4401 and "must not be in an address" in reason
    assert secret not in answer.text + reason + caplog.text


def raw(url: str, *parts: bytes) -> bytes:
    """Send bytes as they are; return the head and the beginning of the answer."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        with suppress(ConnectionResetError, BrokenPipeError):  # it was answered, and closed, before its end
            for part in parts:
                connection.sendall(part)
        return connection.recv(65536)


def endless_head(filler: Callable[[], bytes]) -> list[bytes]:
    return [b"GET /healthz HTTP/1.1\r\nHost: x\r\n", *(filler() for _ in range(MOST_HEAD_BYTES // 1000 + 1))]


def test_a_head_that_goes_on_and_on_is_refused_and_a_large_one_is_not(tmp_path: Path) -> None:
    with served(tmp_path, JobsInMemory()) as url:
        answer = raw(url, *endless_head(lambda: b"K: " + b"v" * 1000 + b"\r\n"))
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert error_of(answer)["code"] == "HEAD_TOO_LARGE"
        assert raw(url, b"GET /", *(b"a" * 1000 for _ in range(70))).startswith(b"HTTP/1.1 431 ")
        large = [b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"K: " + b"v" * 50_000 + b"\r\n", b"\r\n"]
        assert raw(url, *large).startswith(b"HTTP/1.1 200 ")
        body = b" " * 300_000 + b"{}"
        head = b"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer writes\r\nContent-Length: %d\r\n\r\n"
        assert raw(url, head % len(body), body).startswith(b"HTTP/1.1 400 ")


def error_of(answer: bytes) -> dict[str, Any]:
    """Read the error in an answer as it came."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head
    assert f"content-length: {len(body)}".encode() in head
    return json.loads(body)["error"]


@pytest.mark.parametrize(
    "request_", [b"hello\r\n\r\n", b"GET / HTTP/1.1\r\nHost\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"]
)
def test_what_is_not_http_is_answered_like_all_else(tmp_path: Path, request_: bytes) -> None:
    with served(tmp_path, JobsInMemory()) as url:
        answer = raw(url, request_)
    assert answer.startswith(b"HTTP/1.1 400 ")
    error = error_of(answer)
    assert (error["code"], error["details"]["field"]) == ("INVALID_CONFIG", "request")


@pytest.mark.parametrize(
    ("setting", "origin", "allowed"),
    [
        ("https://a.example, http://localhost:3000", "https://a.example", "https://a.example"),
        ("https://a.example, http://localhost:3000", "http://localhost:3000", "http://localhost:3000"),
        ("https://a.example", "https://a.example.evil", None),
        ("https://a.example", "http://a.example", None),
        ("https://*.example", "https://b.example", "https://b.example"),
        ("*", "https://anything", "*"),
        ("", "https://a.example", None),
    ],
)
def test_pages_of_allowed_origins_may_call_and_never_with_cookies(
    connect: Connect, setting: str, origin: str, allowed: str | None
) -> None:
    client = connect(allowed_origins=setting)
    wanted = "authorization,content-type,idempotency-key"
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": wanted}
    before = connect(None, allowed_origins=setting).options(JOBS, headers={"Origin": origin, **asked})
    called = client.get(JOBS, headers={"Origin": origin})
    refused = client.get(JOBS, headers={"Origin": origin, "Authorization": "Bearer unknown"})
    for answer in (before, called, refused):
        assert answer.headers.get("Access-Control-Allow-Origin") == allowed
        assert "Access-Control-Allow-Credentials" not in answer.headers
    if setting and not allowed:
        assert before.status_code == 403
        assert before.json()["error"]["code"] == "PERMISSION_DENIED"
    if allowed:
        assert before.status_code == 204
        assert set(wanted.split(",")) <= set(before.headers["Access-Control-Allow-Headers"].lower().split(", "))
        assert "POST" in before.headers["Access-Control-Allow-Methods"]
        assert "RateLimit-Remaining" in called.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("value", ["a.example", "https://a.example/path", "ftp://a", "https://a b", "null"])
def test_what_is_no_origin_is_refused_as_a_setting(value: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        Settings(allowed_origins=value)


def test_bodies_that_are_odd_are_answered_like_all_else(client: Client) -> None:
    deep = b'{"config": ' + b"[" * 900 + b"]" * 900 + b"}"
    long = b'{"config": {"rank": ' + b"9" * 5000 + b"}}"
    for body in (
        b"\x00",
        b'{"config": {"rank": 1e999}}',
        json.dumps({"config": "\0"}).encode(),
        b"{" * 10_000,
        deep,
        long,
    ):
        answer = client.post(JOBS, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "INVALID_CONFIG"
