"""Bad input on every route: ids that are none, and bodies of other kinds; each is refused, and nothing comes of it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.studio_in_memory import CONFIG, JobsInMemory

IDS = {
    "traversal": "..%2F..%2F..%2Fetc%2Fpasswd",
    "dots": "%2e%2e",
    "backslashes": "..%5C..%5Cwindows",
    "nothing": "%00",
    "no text": "%ff%fe",
    "unicode": "%F0%9F%98%80%E2%80%AE%CC%81",
    "long": "x" * 10_000,
    "wildcard": "*",
    "query": "a%3Fb%23c",
    "lines": "a%0D%0AX-Evil%3A%201",
}
BODIES: dict[str, Any] = {
    "null": None,
    "number": 7,
    "text": "text",
    "list": [{}],
    "list of everything": [None, True, 1.5, "x", [], {}],
    "unknown field": {"no_such_field": 1},
    "ten thousand tags": {"tags": ["tag"] * 10_000},
    "ten thousand fields": {f"field{number}": number for number in range(10_000)},
    "names of Python": {"__class__": {"__init__": {"__globals__": 1}}, "constructor": {"prototype": {}}},
}


@pytest.fixture
def admin(connect: Connect) -> Client:
    return connect("rules")


@pytest.fixture
def operations(admin: Client) -> dict[str, dict[str, Any]]:
    """All operations of the API's document, by method and path."""
    paths = admin.get("/api/v1/openapi.json").json()["paths"]
    return {f"{method.upper()} {path}": found for path, item in paths.items() for method, found in item.items()}


def sent(client: Client, operation: str, found: dict[str, Any], ids: str, **content: Any) -> Any:
    """Send a request that is right but for its ids or its body."""
    method, _, path = operation.partition(" ")
    headers = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0"}
    needed = [one["name"] for one in found.get("parameters", []) if one.get("in") == "query" and one["required"]]
    if not content and "requestBody" in found:
        kind, described = next(iter(found["requestBody"]["content"].items()))
        examples = described["schema"].get("examples")
        content = {"content": json.dumps(examples[0]) if examples else b"{}"}
        headers["Content-Type"] = kind
    address = re.sub(r"{[^}]+}", ids, path)
    return client.request(method, address, headers=headers, params=dict.fromkeys(needed, "x") or None, **content)


def files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and "idempotency" not in path.parts}


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS)
def test_ids_that_are_none_are_not_found_on_any_route(
    admin: Client, operations: dict[str, Any], jobs: JobsInMemory, tmp_path: Path, ids: str
) -> None:
    before, tried = files_in(tmp_path), 0
    for operation, found in operations.items():
        if "{" not in operation:
            continue
        answer = sent(admin, operation, found, ids)
        # 400 is for whoever asks in a wrong way besides, and 405 where "a/b" is another address.
        assert answer.status_code in (400, 404, 405, 415), (operation, answer.text)
        assert answer.headers["Content-Type"] == "application/json", operation
        assert "X-Evil" not in answer.headers
        if not operation.startswith("HEAD"):
            assert answer.json()["error"].keys() == {"code", "message", "details"}, operation
            assert "Traceback" not in answer.text and str(tmp_path) not in answer.text
        tried += 1
    assert tried > 20
    assert files_in(tmp_path) == before
    assert not jobs.jobs


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_bodies_of_another_kind_are_refused_on_every_route_that_takes_one(
    admin: Client, operations: dict[str, Any], jobs: JobsInMemory, tmp_path: Path, body: Any
) -> None:
    job_id = jobs.add().job_id
    before, tried = files_in(tmp_path), 0
    for operation, found in operations.items():
        kinds = found.get("requestBody", {}).get("content", {})
        if "application/json" not in kinds or (body is None and not found["requestBody"]["required"]):
            continue
        answer = sent(admin, operation, found, job_id, json=body)
        assert answer.status_code == 400, (operation, answer.text)
        assert answer.json()["error"]["details"]["field"], operation
        assert len(answer.content) < 20_000, operation
        tried += 1
    assert tried >= 7
    assert files_in(tmp_path) == before
    assert [*jobs.jobs] == [job_id]


def test_the_last_of_two_fields_of_the_same_name_counts_as_in_all_json(client: Client, jobs: JobsInMemory) -> None:
    first, second = json.dumps(CONFIG | {"rank": 4}), json.dumps(CONFIG | {"rank": 0})
    headers = {"Content-Type": "application/json"}
    answer = client.post("/api/v1/jobs", content=f'{{"config": {first}, "config": {second}}}', headers=headers)
    assert answer.status_code == 400
    assert not jobs.jobs


@pytest.mark.parametrize("name", ["Zoë, 完成 😀", "\u202egnp.exe", "e\u0301", "' OR 1=1 --", "{{7*7}}", "<script>"])
def test_text_of_any_kind_comes_back_as_it_was(client: Client, name: str) -> None:
    answer = client.post("/api/v1/jobs", json={"config": CONFIG | {"project_name": name}})
    job_id = answer.json()["job_id"]
    assert client.get(f"/api/v1/jobs/{job_id}").json()["config"]["project_name"] == name
    assert client.get("/api/v1/jobs", params={"project": name}).json()["total"] == 1
