"""The client and the API know the same routes: neither has one that the other lacks."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from peft_studio.client.calls import Blocking, Call
from peft_studio.client.operations import Operations
from tests.integration.api.fixtures import Connect


class Describing(Operations, Blocking):
    """A client that sends nothing, and returns the requests that it would begin with."""

    def perform(self, operation: Any) -> Any:
        return operation if isinstance(operation, Call) else next(operation)


def requests(file: Path) -> dict[str, Call[Any]]:
    """Every operation's request, with something for each of its parameters."""
    client, found = Describing(), {}
    for name, method in inspect.getmembers(client, inspect.ismethod):
        if name == "perform":
            continue
        needed = [
            one for one in inspect.signature(method).parameters.values() if one.default is inspect.Parameter.empty
        ]
        values: dict[str, Any] = {"file": file, "metadata": {}, "config": {}, "credentials": {}, "experiment_ids": []}
        found[name] = method(**{one.name: values.get(one.name, "x") for one in needed})
    return found


@pytest.fixture
def documented(connect: Connect) -> set[tuple[str, str]]:
    paths = connect(None).get("/api/v1/openapi.json").json()["paths"]
    return {
        (method.upper(), path.removeprefix("/api/v1"))
        for path, methods in paths.items()
        for method in methods
        if path.startswith("/api/v1/")
    }


def matches(request: Call[Any], route: tuple[str, str]) -> bool:
    pattern = re.sub(r"\{[^}]+:path\}", ".+", re.sub(r"\{\w+\}", "[^/]+", route[1]))
    return request.method == route[0] and re.fullmatch(pattern, request.path) is not None


# The WebSocket's twin for those who have no WebSocket: the client follows by the WebSocket.
# Uploads in pieces: the client's first request is the POST.
BY_OTHER_MEANS = re.compile(
    r"GET /jobs/\{job_id\}/events|(HEAD|PATCH|DELETE|OPTIONS) /datasets/uploads.*|POST /datasets"
)


def test_every_route_can_be_called(documented: set[tuple[str, str]], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    known = requests(tmp_path / "rows.jsonl").values()
    missing = [route for route in documented if not any(matches(request, route) for request in known)]
    assert [route for route in missing if not BY_OTHER_MEANS.fullmatch(" ".join(route))] == []


# Routes that are still to come; nothing may be added here.
TO_COME = re.compile(r"/(models|tickets|keys).*")


def test_every_call_has_a_route(documented: set[tuple[str, str]], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    lost = {name: call for name, call in requests(tmp_path / "rows.jsonl").items() if not TO_COME.fullmatch(call.path)}
    assert [name for name, call in lost.items() if not any(matches(call, route) for route in documented)] == []
