"""The WebSocket: replay, follow, resume, end, and who is let in."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from litestar.exceptions import WebSocketDisconnect
from litestar.testing import WebSocketTestSession

from api.app import create_app
from infra.settings import Settings
from peft_studio.errors import ResourceUnavailable
from peft_studio.events import Event, Log, Metrics, Status
from peft_studio.jobs import Job, JobStatus
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.studio_in_memory import JobsInMemory, KeysInMemory
from tests.waiting import until

SECONDS = 10.0


def read(socket: WebSocketTestSession, count: int) -> list[dict[str, Any]]:
    return [socket.receive_json(timeout=SECONDS) for _ in range(count)]


def close_of(socket: WebSocketTestSession) -> tuple[int, str]:
    with pytest.raises(WebSocketDisconnect) as closed:
        socket.receive_json(timeout=SECONDS)
    return closed.value.code, closed.value.detail


def steps(jobs: JobsInMemory, job: Job, *numbers: int) -> None:
    for number in numbers:
        jobs.say(Metrics(job_id=job.job_id, metrics={"step": number}))


def test_what_happened_is_replayed_then_what_happens_follows_until_the_end(client: Client, jobs: JobsInMemory) -> None:
    job = jobs.add(status=JobStatus.RUNNING)
    steps(jobs, job, *range(300))
    with client.websocket_connect(f"/ws/jobs/{job.job_id}") as socket:
        seen = read(socket, 300)
        steps(jobs, job, *range(300, 600))
        jobs.say(Log(job_id=job.job_id, message="bye"))
        jobs.say(Status(job_id=job.job_id, status=JobStatus.COMPLETED))
        seen += read(socket, 302)
        assert close_of(socket) == (1000, "")
    assert [message["metrics"]["step"] for message in seen[:600]] == list(range(600))
    assert seen[600]["message"] == "bye"
    assert seen[601]["status"] == "completed"
    assert len({message["cursor"] for message in seen}) == 602


def test_a_client_goes_on_where_it_was(client: Client, jobs: JobsInMemory) -> None:
    job = jobs.add(status=JobStatus.RUNNING)
    steps(jobs, job, 1, 2, 3)
    with client.websocket_connect(f"/ws/jobs/{job.job_id}") as socket:
        cursor = read(socket, 2)[-1]["cursor"]
    jobs.say(Status(job_id=job.job_id, status=JobStatus.FAILED))
    with client.websocket_connect(f"/ws/jobs/{job.job_id}", params={"after": cursor}) as socket:
        assert [message["type"] for message in read(socket, 2)] == ["metrics", "status"]
        assert close_of(socket)[0] == 1000


def test_what_a_client_says_is_ignored(client: Client, jobs: JobsInMemory) -> None:
    job = jobs.add(status=JobStatus.RUNNING)
    with client.websocket_connect(f"/ws/jobs/{job.job_id}") as socket:
        socket.send_text("hello?")
        socket.send_bytes(b"\x00")
        steps(jobs, job, 1)
        assert read(socket, 1)[0]["type"] == "metrics"


def test_a_browser_sends_its_key_as_a_subprotocol(connect: Connect, jobs: JobsInMemory) -> None:
    job = jobs.add(status=JobStatus.COMPLETED)
    path = f"/ws/jobs/{job.job_id}"
    with connect(None).websocket_connect(path, subprotocols=["peft-studio", "bearer.reads"]) as socket:
        assert socket.accepted_subprotocol == "peft-studio"
        assert close_of(socket) == (1000, "")


@pytest.mark.parametrize(
    ("key", "subprotocols", "query"),
    [
        (None, None, ""),
        ("unknown", None, ""),
        (None, ["peft-studio"], ""),
        (None, ["peft-studio", "bearer.unknown"], ""),
        (None, None, "?api_key=writes&token=writes"),
    ],
)
def test_without_a_valid_key_the_socket_is_closed_and_says_why(
    connect: Connect, jobs: JobsInMemory, key: str | None, subprotocols: list[str] | None, query: str
) -> None:
    job = jobs.add()
    with connect(key).websocket_connect(f"/ws/jobs/{job.job_id}{query}", subprotocols=subprotocols) as socket:
        code, reason = close_of(socket)
    assert code == 4401
    assert reason.startswith("AUTHENTICATION_FAILED: ")


def test_a_job_that_is_not_there_closes_the_socket(client: Client) -> None:
    with client.websocket_connect("/ws/jobs/job_" + "é" * 200) as socket:
        code, reason = close_of(socket)
    assert code == 4404
    assert reason.startswith("JOB_NOT_FOUND: ")
    assert len(reason.encode()) <= 123


@pytest.mark.parametrize(("trouble", "code"), [(ResourceUnavailable(), 4503), (RuntimeError("hunter2"), 4500)])
def test_trouble_closes_the_socket(client: Client, jobs: JobsInMemory, trouble: Exception, code: int) -> None:
    jobs.trouble = trouble
    with client.websocket_connect("/ws/jobs/job_0") as socket:
        closed = close_of(socket)
    assert closed[0] == code
    assert "hunter2" not in closed[1]


def test_a_key_holds_so_many_sockets_and_no_more(connect: Connect, jobs: JobsInMemory) -> None:
    client, path = connect(connections_per_key=2), f"/ws/jobs/{jobs.add().job_id}"
    with client.websocket_connect(path), client.websocket_connect(path):
        until(lambda: jobs.followers == 2, SECONDS)
        with client.websocket_connect(path) as third:
            code, reason = close_of(third)
        assert (code, reason.partition(":")[0]) == (4429, "RATE_LIMIT_EXCEEDED")
        with client.websocket_connect(path, headers={"Authorization": "Bearer reads"}):
            until(lambda: jobs.followers == 3, SECONDS)
    until(lambda: jobs.followers == 0, SECONDS)
    with client.websocket_connect(path):
        until(lambda: jobs.followers == 1, SECONDS)


@pytest.mark.anyio
async def test_a_client_that_does_not_read_holds_up_nothing_but_its_own_stream(studio_settings: Settings) -> None:
    produced = 0

    class Endless(JobsInMemory):
        async def follow(self, job_id: str, after: str | None = None) -> AsyncIterator[tuple[str, Event]]:
            nonlocal produced
            while True:
                produced += 1
                yield str(produced), Log(job_id=job_id, message="more")

    app = create_app(Endless(), KeysInMemory(), studio_settings)
    arriving: asyncio.Queue[Any] = asyncio.Queue()
    arriving.put_nowait({"type": "websocket.connect"})
    reading = asyncio.Event()

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            await reading.wait()

    scope: Any = {
        "type": "websocket",
        "path": "/ws/jobs/job_0",
        "raw_path": b"/ws/jobs/job_0",
        "query_string": b"",
        "headers": [(b"authorization", b"Bearer reads")],
        "subprotocols": [],
    }
    serving = asyncio.create_task(app(scope, arriving.get, send))
    for _ in range(100):
        await asyncio.sleep(0)
    assert produced == 1
    arriving.put_nowait({"type": "websocket.disconnect", "code": 1006})
    await asyncio.wait_for(serving, SECONDS)
    assert produced == 1
