"""Tickets: how a browser opens a WebSocket without its page knowing the key."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from litestar.exceptions import WebSocketDisconnect

from infra.tickets import Tickets
from peft_studio.jobs import JobStatus
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.studio_in_memory import JobsInMemory, KeysInMemory


def ticket_of(client: Client) -> str:
    answer = client.post("/api/v1/tickets")
    assert answer.status_code == 201
    return answer.json()["ticket"]


def close_of(client: Client, path: str, subprotocols: list[str] | None = None) -> tuple[int, str]:
    with client.websocket_connect(path, subprotocols=subprotocols) as socket, pytest.raises(WebSocketDisconnect) as end:
        while True:
            socket.receive_json(timeout=10)
    return end.value.code, end.value.detail


@pytest.fixture
def path(jobs: JobsInMemory) -> str:
    return f"/ws/jobs/{jobs.add(status=JobStatus.COMPLETED).job_id}"


def test_a_ticket_says_how_long_it_holds(client: Client) -> None:
    answer = client.post("/api/v1/tickets").json()
    left = datetime.fromisoformat(answer["expires_at"]) - datetime.now(UTC)
    assert 50 < left.total_seconds() <= 60


@pytest.mark.parametrize("key", ["reads", "writes", "rules"])
def test_a_ticket_opens_one_socket_whatever_the_role(connect: Connect, path: str, key: str) -> None:
    ticket = ticket_of(connect(key))
    browser = connect(None)
    assert close_of(browser, f"{path}?ticket={ticket}") == (1000, "")
    code, reason = close_of(browser, f"{path}?ticket={ticket}")
    assert (code, reason.partition(":")[0]) == (4401, "AUTHENTICATION_FAILED")


def test_a_ticket_may_be_offered_as_a_subprotocol(connect: Connect, path: str) -> None:
    ticket = ticket_of(connect())
    with connect(None).websocket_connect(path, subprotocols=["peft-studio", f"ticket.{ticket}"]) as socket:
        assert socket.accepted_subprotocol == "peft-studio"


def test_a_ticket_outlives_the_process_that_gave_it(connect: Connect, path: str) -> None:
    ticket = ticket_of(connect())
    assert close_of(connect(None), f"{path}?ticket={ticket}") == (1000, "")


@pytest.mark.parametrize("ticket", ["unknown", "", "../../etc/passwd", "writes", "%00"])
def test_whatever_else_is_no_ticket(connect: Connect, path: str, ticket: str) -> None:
    assert close_of(connect(None), f"{path}?ticket={ticket}")[0] == 4401


def test_a_ticket_is_no_key(connect: Connect, path: str) -> None:
    ticket = ticket_of(connect())
    answer = connect(None).get("/api/v1/jobs", headers={"Authorization": f"Bearer {ticket}"})
    assert answer.status_code == 401
    assert connect(None).get(f"/api/v1/jobs?ticket={ticket}").status_code == 401


def test_a_ticket_falls_with_its_key(connect: Connect, path: str) -> None:
    keys = KeysInMemory()
    client = connect(keys=keys)
    ticket = ticket_of(client)
    client.delete(f"/api/v1/keys/{keys.known['writes'].id}", headers={"Authorization": "Bearer rules"})
    assert close_of(client, f"{path}?ticket={ticket}")[0] == 4401


def test_only_hashes_of_tickets_are_stored(client: Client, tmp_path: Path) -> None:
    ticket = ticket_of(client)
    (file,) = tmp_path.glob("data/tickets/*")
    assert ticket not in file.name + file.read_text()
    assert "writes" not in file.read_text()


@pytest.mark.anyio
async def test_an_old_ticket_is_refused_and_removed(tmp_path: Path) -> None:
    late = Tickets(tmp_path, seconds=-1)
    assert await late.redeem((await late.issue("key")).ticket) is None
    tickets = Tickets(tmp_path)
    await tickets.issue("key")
    (old,) = tmp_path.iterdir()
    os.utime(old, (0, 0))
    await tickets.issue("key")
    assert old not in tmp_path.iterdir()


@pytest.mark.anyio
async def test_of_many_who_show_a_ticket_at_once_one_is_let_in(tmp_path: Path) -> None:
    tickets = Tickets(tmp_path)
    for _ in range(20):
        path = tickets._path((await tickets.issue("key")).ticket)
        with ThreadPoolExecutor(8) as pool:
            taken = list(pool.map(tickets._take, [path] * 8))
        assert sorted(taken, key=str) == [None] * 7 + ["key"]
