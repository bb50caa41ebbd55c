"""The client and the API know the same routes: neither has one that the other lacks."""

import inspect
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from pydantic import BaseModel

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
        values: dict[str, Any] = {
            "file": file,
            "metadata": {},
            "config": {},
            "credentials": {},
            "experiment_ids": [],
            "budgets": [],
            "changes": {},
            "registries": [],
            "wanted": {},
            "lineage": {},
        }
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


def test_every_call_has_a_route(documented: set[tuple[str, str]], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    calls = requests(tmp_path / "rows.jsonl").items()
    assert [name for name, call in calls if not any(matches(call, route) for route in documented)] == []


def test_every_answer_is_read_with_all_of_its_fields(connect: Connect, tmp_path: Path) -> None:
    document = connect(None).get("/api/v1/openapi.json").json()
    (tmp_path / "rows.jsonl").touch()
    compared = 0
    for name, call in requests(tmp_path / "rows.jsonl").items():
        (kind,) = get_args(get_type_hints(getattr(Operations, name))["return"])[-1:]
        if not (inspect.isclass(kind) and issubclass(kind, BaseModel)) or name in READ_OTHERWISE:
            continue
        shown = properties(document, call)
        assert shown - kind.model_fields.keys() <= OF_RECEIPTS, name
        needed = {field for field, info in kind.model_fields.items() if info.is_required()}
        assert needed <= shown, name
        compared += 1
    assert compared > 30


# The answer to the last of several requests, or one field of an answer.
READ_OTHERWISE = {"upload_dataset", "compare_experiments", "compare_sweep"}
# What was deleted is known to whoever asked for it.
OF_RECEIPTS = {"dataset_id", "adapter_id", "deployment_id", "export_id", "evaluation_id", "schedule_id", "id"}


def properties(document: dict[str, Any], call: Call[Any]) -> set[str]:
    """The fields of a request's good answer, as the API describes them."""
    for path, methods in document["paths"].items():
        route = (call.method, path.removeprefix("/api/v1"))
        if call.method.lower() in methods and matches(call, route):
            answers = methods[call.method.lower()]["responses"]
            good = next(answers[status] for status in answers if status.startswith("2"))
            name = good["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            return set(document["components"]["schemas"][name]["properties"])
    raise LookupError(call.path)
