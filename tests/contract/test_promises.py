"""What users were promised: every example of the API's document, sent and answered, field by field."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.serving.records import Deployments
from infra.settings import Settings
from peft_studio import errors
from peft_studio.events import Event, parse_event
from tests.contract.promises import (
    BASE_URL,
    CODES,
    DEFAULTS,
    ERROR,
    MESSAGES,
    PROMISES,
    REQUESTS_A_MINUTE,
    SOCKET_URL,
    SOCKETS_A_KEY,
    Promise,
)
from tests.contract.scenes import REQUEST, SCENES, Backstage, Names, running
from tests.contract.shapes import differences, shape_of
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.studio_in_memory import JobsInMemory

CONFIG = shape_of(REQUEST, None)
CREATED = {"Create Training Job", "Upload Adapter", "Create Deployment"}
SHOWN = [promise for promise in PROMISES if promise.title in SCENES]


def in_its_place(value: Any, names: Names) -> Any:
    """Put what there is in this studio in place of the document's names, and of the values of its fields."""
    match value:
        case dict():
            return {name: names[name] if name in names else in_its_place(inner, names) for name, inner in value.items()}
        case list():
            return [in_its_place(inner, names) for inner in value]
        case str():
            return names.get(value, value)
        case _:
            return value


Ask = Callable[[Promise], tuple[Any, Names]]


@pytest.fixture
def ask(
    connect: Connect,
    jobs: JobsInMemory,
    deployments: Deployments,
    tmp_path: Path,
    endpoint: Callable[[str], str],
    platforms: dict[str, str],
) -> Ask:
    """Send an example's request, in its scene."""

    def asked(promise: Promise) -> tuple[Any, Names]:
        client = connect(data_dir=tmp_path, platform_urls=platforms)
        names = SCENES[promise.title](Backstage(client, jobs, deployments, tmp_path, endpoint))
        content: dict[str, Any] = {}
        if promise.form:
            content["files"] = {part: names[part] for part in promise.form}
        elif promise.body is not None:
            content["json"] = in_its_place(promise.body, names)
        return client.request(promise.method, "/api/v1" + promise.path.format(**names), **content), names

    return asked


@pytest.mark.parametrize("promise", SHOWN, ids=[promise.title for promise in SHOWN])
def test_an_answer_has_what_was_promised(ask: Ask, promise: Promise) -> None:
    answer, _ = ask(promise)
    assert answer.status_code == (201 if promise.title in CREATED else 200), answer.text
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    if promise.title == "List Platforms":  # of all that there are, the document shows the one that was connected
        body["platforms"] = [platform for platform in body["platforms"] if platform["name"] == "runpod"]
    assert differences(shape_of(promise.answer, CONFIG), body) == []


def test_a_platform_that_is_not_connected_shows_the_promised_fields_too(client: Client) -> None:
    promise = next(promise for promise in PROMISES if promise.title == "List Platforms")
    platforms = client.get("/api/v1/platforms").json()["platforms"]
    assert len(platforms) > 5
    for platform in platforms:
        assert platform.keys() >= promise.answer["platforms"][0].keys()
        assert platform["features"]


def test_the_documents_comparison_comes_out_of_its_experiments(ask: Ask) -> None:
    promise = next(promise for promise in PROMISES if promise.title == "Compare Experiments")
    answer, names = ask(promise)
    promised, comparison = in_its_place(promise.answer["comparison"], names), answer.json()["comparison"]
    for name in promised["metrics"]:
        assert comparison["metrics"][name] == promised["metrics"][name]
    for name in ("best_performer", "cost_analysis"):
        assert comparison[name] == promised[name]


def test_the_documents_own_deployment_is_understood_and_wants_its_platform_connected(client: Client) -> None:
    promise = next(promise for promise in PROMISES if promise.title == "Create Deployment")
    answer = client.post("/api/v1/deployments", json=promise.body)
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "PLATFORM_NOT_CONNECTED"
    assert answer.json()["error"]["details"] == {"platform": "predibase", "field": "platform"}


def test_the_configuration_that_was_sent_is_the_one_that_comes_back(client: Client) -> None:
    job_id = client.post("/api/v1/jobs", json={"config": REQUEST}).json()["job_id"]
    config = client.get(f"/api/v1/jobs/{job_id}").json()["config"]
    assert {name: config[name] for name in REQUEST} == REQUEST


@pytest.fixture
def described(connect: Connect) -> dict[str, Any]:
    """The API's own description of its routes, by method and path; what a parameter of a path is called is free."""
    paths = connect(None).get("/api/v1/openapi.json").json()["paths"]
    return {route_of(method, path): found for path, item in paths.items() for method, found in item.items()}


def route_of(method: str, path: str) -> str:
    return f"{method.upper()} {re.sub(r'{[^}]+}', '{}', path)}"


@pytest.mark.parametrize("promise", SHOWN, ids=[promise.title for promise in SHOWN])
def test_the_promised_parameters_are_in_the_apis_own_document(described: dict[str, Any], promise: Promise) -> None:
    path, _, query = promise.path.partition("?")
    route = described[route_of(promise.method, "/api/v1" + path)]
    parameters = {one["name"]: one["schema"].get("default") for one in route.get("parameters", []) if "name" in one}
    for name in (part.partition("=")[0] for part in query.split("&") if part):
        assert name in parameters
        if (promise.title, name) in DEFAULTS:
            assert parameters[name] == DEFAULTS[promise.title, name]


def test_every_promise_has_its_scene_once_the_api_has_its_route(described: dict[str, Any]) -> None:
    routes = {
        promise.title: route_of(promise.method, "/api/v1" + promise.path.partition("?")[0]) for promise in PROMISES
    }
    assert [title for title, route in routes.items() if route in described and title not in SCENES] == []


@pytest.mark.parametrize("example", MESSAGES.values(), ids=MESSAGES)
def test_a_message_has_what_was_promised(client: Client, jobs: JobsInMemory, example: dict[str, Any]) -> None:
    job = running(jobs)
    event: Event = parse_event(example | {"job_id": job.job_id})
    jobs.events[job.job_id] = [event]
    with client.websocket_connect(SOCKET_URL.partition("8000")[2].format(job_id=job.job_id)) as socket:
        message = socket.receive_json(timeout=10)
    assert differences(shape_of(example, CONFIG), message) == []
    assert message.items() >= (example | {"job_id": job.job_id}).items()


def test_a_wrong_value_is_explained_as_promised(client: Client) -> None:
    answer = client.post("/api/v1/jobs", json={"config": REQUEST | {"learning_rate": 1.0}})
    promised = ERROR["error"]
    error = answer.json()["error"]
    assert answer.json().keys() == {"error"}
    assert error["code"] == promised["code"]
    assert error["message"].rstrip(".") == promised["message"]
    assert error["details"].items() >= promised["details"].items()


REFUSALS: dict[str, tuple[int, errors.StudioError | Exception]] = {
    "INVALID_CONFIG": (400, errors.InvalidConfig()),
    "PLATFORM_NOT_CONNECTED": (409, errors.PlatformNotConnected()),
    "INSUFFICIENT_CREDITS": (402, errors.InsufficientCredits()),
    "RESOURCE_UNAVAILABLE": (503, errors.ResourceUnavailable()),
    "JOB_NOT_FOUND": (404, errors.JobNotFound()),
    "RATE_LIMIT_EXCEEDED": (429, errors.RateLimitExceeded()),
    "AUTHENTICATION_FAILED": (401, errors.AuthenticationFailed()),
    "INTERNAL_ERROR": (500, RuntimeError("nobody thought of this")),
}


@pytest.mark.parametrize("code", CODES)
def test_every_promised_code_has_the_promised_shape(client: Client, jobs: JobsInMemory, code: str) -> None:
    status, jobs.trouble = REFUSALS[code]
    answer = client.post("/api/v1/jobs", json={"config": REQUEST})
    assert answer.status_code == status
    assert answer.json().keys() == {"error"}
    assert differences({"code": code, "message": (str,), "details": {}}, answer.json()["error"]) == []


def test_requests_without_a_valid_key_are_refused(connect: Connect) -> None:
    for key in (None, "nobody's"):
        assert connect(key).get("/api/v1/jobs").json()["error"]["code"] == "AUTHENTICATION_FAILED"


def test_so_many_requests_a_minute_are_answered_and_no_more(connect: Connect) -> None:
    client = connect(requests_per_minute=Settings.model_fields["requests_per_minute"].default)
    statuses = [client.get("/api/v1/jobs").status_code for _ in range(REQUESTS_A_MINUTE + 1)]
    assert statuses == [200] * REQUESTS_A_MINUTE + [429]
    assert client.get("/api/v1/jobs").json()["error"]["code"] == "RATE_LIMIT_EXCEEDED"


def test_the_address_and_the_limits_are_those_promised_unless_an_operator_sets_others() -> None:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert defaults["requests_per_minute"] == REQUESTS_A_MINUTE
    assert defaults["connections_per_key"] == SOCKETS_A_KEY
    assert f"http://localhost:{defaults['port']}/api/v1" == BASE_URL
