"""Keys, tickets and repeated requests on a real studio, whose API is killed in between."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from benchmarks.studio import Studio
from tests.acceptance.conftest import eventually
from tests.acceptance.jobs import is_ready, part, short_job
from tests.acceptance.test_up import peft_studio

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]
HELD = {"max_steps": 5000, "num_epochs": 100}


@pytest.fixture
def client(studio: Studio) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {studio.key}"}
    with httpx.Client(base_url=f"{studio.url}/api/v1", headers=headers, timeout=60) as client:
        yield client


def post_job(client: httpx.Client, key: str, **changes: Any) -> httpx.Response:
    return client.post("/jobs", json={"config": short_job(**HELD | changes)}, headers={"Idempotency-Key": key})


def kill_api(studio: Studio) -> None:
    part(studio, "api.app").kill()
    assert eventually(lambda: is_ready(studio), 60)


def test_requests_sent_twice_by_many_make_each_job_once(client: httpx.Client) -> None:
    keys = [f"crowd-{number}" for number in range(12)] * 2
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda key: post_job(client, key, project_name="crowd"), keys))
    assert {answer.status_code for answer in answers} == {201}
    bodies = [answer.content for answer in answers]
    assert bodies[:12] == bodies[12:]
    assert len(set(bodies)) == 12
    assert client.get("/jobs?project=crowd").json()["total"] == 12
    for answer in reversed(answers[:12]):
        client.post(f"/jobs/{answer.json()['job_id']}/cancel")


def test_a_kill_before_the_answer_was_kept_makes_no_second_job(studio: Studio, client: httpx.Client) -> None:
    first = post_job(client, "killed", project_name="killed").json()
    for kept in (studio.data_dir / "idempotency").iterdir():
        kept.unlink()  # as if it had not come to that
    kill_api(studio)
    again = post_job(client, "killed", project_name="killed")
    assert again.json()["job_id"] == first["job_id"]
    assert "Idempotency-Replayed" not in again.headers
    assert post_job(client, "killed", project_name="killed").headers["Idempotency-Replayed"] == "true"
    for kept in (studio.data_dir / "idempotency").iterdir():
        kept.unlink()
    assert post_job(client, "killed", rank=4).status_code == 409
    assert client.get("/jobs?project=killed").json()["total"] == 1
    client.post(f"/jobs/{first['job_id']}/cancel")


def test_a_ticket_outlives_a_kill_and_is_logged_nowhere(studio: Studio, client: httpx.Client) -> None:
    job_id = post_job(client, "watched").json()["job_id"]
    ticket = client.post("/tickets").json()["ticket"]
    kill_api(studio)
    address = f"{studio.url.replace('http', 'ws')}/ws/jobs/{job_id}"
    with connect(f"{address}?ticket={ticket}") as socket:
        assert json.loads(socket.recv(10))["status"] == "pending"
    for query, code in ((f"ticket={ticket}", 4401), (f"api_key={studio.key}", 4401)):
        with connect(f"{address}?{query}") as socket, pytest.raises(ConnectionClosed) as closed:
            socket.recv(10)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == code
    client.post(f"/jobs/{job_id}/cancel")
    written = "".join(path.read_text() for path in Path(studio.data_dir / "logs").iterdir())
    assert ticket not in written and studio.key not in written


def test_a_revoked_key_loses_its_sockets_within_seconds(studio: Studio, client: httpx.Client) -> None:
    made = client.post("/keys", json={"name": "watcher", "role": "read"}).json()
    job_id = post_job(client, "long").json()["job_id"]
    address = f"{studio.url.replace('http', 'ws')}/ws/jobs/{job_id}"
    with connect(address, additional_headers={"Authorization": f"Bearer {made['key']}"}) as socket:
        socket.recv(10)
        assert peft_studio("keys", "revoke", made["id"], "--data-dir", studio.data_dir).returncode == 0
        with pytest.raises(ConnectionClosed) as closed:
            deadline = time.monotonic() + 15
            while time.monotonic() < deadline:
                socket.recv(15)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4401
    client.post(f"/jobs/{job_id}/cancel")


def test_a_keys_last_use_is_stored_and_shown(studio: Studio, client: httpx.Client) -> None:
    made = client.post("/keys", json={"name": "used", "role": "read"}).json()
    assert client.get("/jobs", headers={"Authorization": f"Bearer {made['key']}"}).status_code == 200

    def stored() -> str | None:
        listed = json.loads(peft_studio("keys", "list", "--json", "--data-dir", studio.data_dir).stdout)
        return next(key["last_used_at"] for key in listed if key["id"] == made["id"])

    assert eventually(stored, 20)
    assert next(key for key in client.get("/keys?limit=100").json()["keys"] if key["id"] == made["id"])["last_used_at"]
