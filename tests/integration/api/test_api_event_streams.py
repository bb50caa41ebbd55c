"""Server-Sent Events over real sockets: peers that do not read or leave, keys that are revoked, silence."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from api.app import create_app
from api.request_protocol import RequestProtocol
from infra.settings import Settings
from peft_studio.events import Log
from peft_studio.jobs import JobStatus
from tests.integration.api.peers import SECONDS, TalkativeJobs, connections
from tests.integration.api.studio_in_memory import JobsInMemory, KeysInMemory
from tests.loopback import on_loopback
from tests.waiting import until


class ShortPatience(RequestProtocol):
    unread_seconds = 1.0


@contextmanager
def serving(
    jobs: JobsInMemory,
    folder: Path,
    keys: KeysInMemory | None = None,
    protocol: type[RequestProtocol] = RequestProtocol,
    **settings: Any,
) -> Iterator[str]:
    """Serve the API; yields the address of a job's event stream."""
    given = Settings.model_validate({"data_dir": folder, "socket_send_seconds": 0.5, **settings})
    job = jobs.add(status=JobStatus.RUNNING)
    with on_loopback(create_app(jobs, keys or KeysInMemory(), given), http=protocol) as url:
        yield f"{url}/api/v1/jobs/{job.job_id}/events"


@contextmanager
def following(address: str, key: str = "reads", **headers: str) -> Iterator[tuple[httpx.Response, Iterator[str]]]:
    """Open a stream; yields the answer and its lines."""
    headers["Authorization"] = f"Bearer {key}"
    with httpx.stream("GET", address, headers=headers, timeout=SECONDS) as answer:
        yield answer, answer.iter_lines()


def ids(lines: Iterator[str]) -> Iterator[int]:
    """The cursors of a stream's events."""
    return (int(line.removeprefix("id: ")) for line in lines if line.startswith("id: "))


def raw_stream(address: str) -> socket.socket:
    """Ask for a stream by hand: a peer that reads nothing until it is told to."""
    host, _, path = address.removeprefix("http://").partition("/")
    name, port = host.split(":")
    peer = socket.create_connection((name, int(port)), timeout=SECONDS)
    peer.sendall(f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer reads\r\n\r\n".encode())
    return peer


def read_all(peer: socket.socket) -> str:
    """Read to the end of the answer."""
    received = bytearray()
    while not received.endswith(b"0\r\n\r\n"):
        part = peer.recv(1 << 16)
        assert part, "the answer has no end"
        received += part
    return received.decode()


def test_a_slow_reader_is_let_go_with_a_reason_and_goes_on_at_its_last_event_id(tmp_path: Path) -> None:
    jobs = TalkativeJobs()
    with serving(jobs, tmp_path) as address:
        with raw_stream(address) as peer:
            until(lambda: jobs.followers == 1)
            until(lambda: jobs.followers == 0)
            text = read_all(peer)
        assert ": SLOW_READER: No message was read for 0.5 s; go on behind the last cursor.\n\n" in text
        seen = list(ids(iter(text.splitlines())))
        assert seen == list(range(1, len(seen) + 1))
        with following(address, **{"Last-Event-ID": str(seen[-1])}) as (_, lines):
            assert next(ids(lines)) == seen[-1] + 1


def test_a_peer_that_never_reads_again_leaves_nothing_behind(tmp_path: Path) -> None:
    jobs = TalkativeJobs()
    with serving(jobs, tmp_path, protocol=ShortPatience) as address, raw_stream(address):
        until(lambda: jobs.followers == 1)
        assert connections(address) == 1
        until(lambda: jobs.followers == 0)
        until(lambda: connections(address) == 0)


def test_slow_readers_hold_up_nobody_else(tmp_path: Path) -> None:
    with serving(TalkativeJobs(), tmp_path) as address, raw_stream(address), following(address) as (_, lines):
        cursors = ids(lines)
        assert [next(cursors) for _ in range(200)] == list(range(1, 201))


def test_a_stream_ends_when_its_key_is_revoked_and_is_refused_from_then_on(tmp_path: Path) -> None:
    jobs, keys = JobsInMemory(), KeysInMemory()
    with serving(jobs, tmp_path, keys) as address:
        with following(address) as (_, lines), following(address, "writes") as (_, others):
            assert next(lines).startswith("retry:") and next(others).startswith("retry:")
            admin = {"Authorization": "Bearer rules"}
            httpx.delete(
                f"{address.partition('/jobs')[0]}/keys/{keys.known['reads'].id}", headers=admin
            ).raise_for_status()
            assert [line for line in lines if line] == [": AUTHENTICATION_FAILED: The API key was revoked."]
            jobs.say(Log(job_id=next(iter(jobs.jobs)), message="to the others"))
            assert next(ids(others)) == 1
        with following(address) as (refused, _):
            assert refused.status_code == 401


def test_a_stream_without_news_says_so_from_time_to_time(tmp_path: Path) -> None:
    jobs = JobsInMemory()
    with serving(jobs, tmp_path, socket_ping_seconds=0.1) as address, following(address) as (_, lines):
        said = (line for line in lines if line)
        assert [next(said) for _ in range(4)] == ["retry: 2000", *3 * [": nothing new"]]
        jobs.say(Log(job_id=next(iter(jobs.jobs)), message="at last"))
        data = next(line for line in said if line.startswith("data: "))
        assert json.loads(data.removeprefix("data: "))["message"] == "at last"


def test_a_key_holds_so_many_streams_and_sockets_and_no_more(tmp_path: Path) -> None:
    jobs = JobsInMemory()
    with serving(jobs, tmp_path, connections_per_key=2) as address, ExitStack() as open_streams:
        open_streams.enter_context(following(address))
        with following(address):
            with following(address) as (refused, _):
                assert refused.status_code == 429
                assert json.loads(refused.read())["error"]["code"] == "RATE_LIMIT_EXCEEDED"
            with pytest.raises(ConnectionClosed) as closed, socket_of(address) as client:
                client.recv(SECONDS)
            assert closed.value.rcvd and closed.value.rcvd.code == 4429
            open_streams.enter_context(following(address, "writes"))
        until(lambda: jobs.followers == 2)
        open_streams.enter_context(following(address))


def socket_of(address: str) -> Any:
    path = address.replace("http", "ws").replace("/api/v1/", "/ws/").removesuffix("/events")
    return connect(path, additional_headers={"Authorization": "Bearer reads"})


def test_a_client_that_leaves_is_followed_by_nobody(tmp_path: Path) -> None:
    jobs = JobsInMemory()
    with serving(jobs, tmp_path) as address:
        with following(address) as (_, lines):
            next(lines)
            until(lambda: jobs.followers == 1)
        until(lambda: jobs.followers == 0)


def test_a_failure_in_the_middle_of_a_stream_is_told_without_its_detail(tmp_path: Path) -> None:
    class Failing(JobsInMemory):
        async def follow(self, job_id: str, after: str | None = None) -> Any:
            yield "1", Log(job_id=job_id, message="fine")
            raise RuntimeError("hunter2")

    with serving(Failing(), tmp_path) as address, following(address) as (_, lines):
        text = "\n".join(lines)
    assert ": INTERNAL_ERROR: Something went wrong inside the studio." in text
    assert "hunter2" not in text


def test_an_answer_of_any_kind_that_nobody_reads_is_not_held_forever(tmp_path: Path) -> None:
    jobs = JobsInMemory()
    job = jobs.add()
    for number in range(10_000):
        jobs.say(Log(job_id=job.job_id, message=f"{number} " + "x" * 1000))
    with serving(jobs, tmp_path, protocol=ShortPatience) as address:
        logs = f"{address.partition('/jobs')[0]}/jobs/{job.job_id}/logs?lines=10000"
        with raw_stream(logs) as peer:
            assert len(peer.recv(1)) == 1  # it reads a little, and then no more
            until(lambda: connections(address) == 1)
            until(lambda: connections(address) == 0)


def test_whoever_asks_for_the_head_of_a_stream_follows_nothing(tmp_path: Path) -> None:
    jobs = JobsInMemory()
    with serving(jobs, tmp_path) as address:
        head = httpx.head(address, headers={"Authorization": "Bearer reads"}, timeout=SECONDS)
        assert (head.status_code, head.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        until(lambda: jobs.followers == 0)
