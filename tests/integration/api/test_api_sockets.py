"""WebSockets over real sockets: peers that do not read, do not answer, or are not there any more."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from api.app import create_app
from api.socket_protocol import SocketProtocol
from infra.settings import Settings
from peft_studio.events import Log
from peft_studio.jobs import Job, JobStatus
from tests.integration.api.peers import SECONDS, TalkativeJobs, connections
from tests.integration.api.studio_in_memory import JobsInMemory, KeysInMemory
from tests.loopback import on_loopback
from tests.waiting import until

KEY = {"Authorization": "Bearer reads"}


class ShortParting(SocketProtocol):
    parting_seconds = 0.5


@contextmanager
def serving(jobs: JobsInMemory, folder: Path, **options: Any) -> Iterator[str]:
    """Serve the API; yields the address of a job's WebSocket."""
    given = Settings.model_validate({"data_dir": folder, "socket_send_seconds": 0.5})
    job = jobs.add(status=JobStatus.RUNNING)
    with on_loopback(create_app(jobs, KeysInMemory(), given), **{"ws": SocketProtocol} | options) as url:
        yield f"{url.replace('http', 'ws')}/ws/jobs/{job.job_id}"


def read_all(client: ClientConnection) -> tuple[list[dict[str, Any]], int, str]:
    """Read to the end; return the messages, the code and the reason of the close."""
    messages: list[dict[str, Any]] = []
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            messages.append(json.loads(client.recv(SECONDS)))
    assert closed.value.rcvd is not None
    return messages, closed.value.rcvd.code, closed.value.rcvd.reason


def raw_socket(address: str) -> socket.socket:
    """Open a WebSocket by hand: a peer of which nothing is ever heard again."""
    host, _, path = address.removeprefix("ws://").partition("/")
    name, port = host.split(":")
    peer = socket.create_connection((name, int(port)), timeout=SECONDS)
    lines = [
        f"GET /{path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "Authorization: Bearer reads",
    ]
    peer.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    assert peer.recv(12) == b"HTTP/1.1 101"
    return peer


def test_a_slow_reader_is_let_go_with_a_reason_and_goes_on_at_its_cursor(tmp_path: Path) -> None:
    jobs = TalkativeJobs()
    with serving(jobs, tmp_path) as address:
        with connect(address, additional_headers=KEY, max_queue=1) as client:
            until(lambda: jobs.followers == 1)
            until(lambda: jobs.followers == 0)
            seen, code, reason = read_all(client)
        assert code == 4408
        assert reason.startswith("SLOW_READER: No message was read for 0.5 s")
        assert [message["cursor"] for message in seen] == [str(seq) for seq in range(1, len(seen) + 1)]
        with connect(f"{address}?after={seen[-1]['cursor']}", additional_headers=KEY) as client:
            assert json.loads(client.recv(SECONDS))["cursor"] == str(len(seen) + 1)


def test_a_peer_that_never_reads_again_leaves_nothing_behind(tmp_path: Path) -> None:
    jobs = TalkativeJobs()
    with serving(jobs, tmp_path, ws=ShortParting) as address, raw_socket(address):
        until(lambda: jobs.followers == 1)
        assert connections(address) == 1
        until(lambda: jobs.followers == 0)
        until(lambda: connections(address) == 0)


def test_slow_readers_hold_up_nobody_else(tmp_path: Path) -> None:
    jobs = TalkativeJobs()
    with serving(jobs, tmp_path) as address, raw_socket(address), connect(address, additional_headers=KEY) as quick:
        for seq in range(1, 200):
            assert json.loads(quick.recv(SECONDS))["cursor"] == str(seq)


def test_a_peer_that_does_not_answer_is_noticed_and_told(tmp_path: Path) -> None:
    jobs = JobsInMemory()
    with serving(jobs, tmp_path, ws_ping_interval=0.2, ws_ping_timeout=0.2) as address, raw_socket(address) as peer:
        until(lambda: jobs.followers == 1)
        until(lambda: jobs.followers == 0)
        received = b""
        with suppress(ConnectionResetError):
            while part := peer.recv(65536):
                received += part
        assert b"\x89\x04" in received  # a ping with four bytes
        assert b"\x03\xf3keepalive ping timeout" in received  # 1011


def test_a_peer_that_neither_reads_nor_answers_leaves_nothing_behind(tmp_path: Path) -> None:
    jobs = TalkativeJobs()
    options = {"ws": ShortParting, "ws_ping_interval": 0.1, "ws_ping_timeout": 0.1}
    with serving(jobs, tmp_path, **options) as address, raw_socket(address):
        until(lambda: connections(address) == 1)
        until(lambda: connections(address) == 0)
        until(lambda: jobs.followers == 0)


def test_a_peer_that_answers_stays(tmp_path: Path) -> None:
    jobs = JobsInMemory()
    options = {"ws_ping_interval": 0.1, "ws_ping_timeout": 1.0}
    with serving(jobs, tmp_path, **options) as address, connect(address, additional_headers=KEY) as client:
        with pytest.raises(TimeoutError):
            client.recv(1.5)
        job: Job = next(iter(jobs.jobs.values()))
        jobs.say(Log(job_id=job.job_id, message="still there?"))
        assert json.loads(client.recv(SECONDS))["message"] == "still there?"
