"""Errors over HTTP: one shape, the right status, and words that say what to change."""

import json
import logging
from typing import Any

import pytest

from peft_studio import errors
from peft_studio.algorithms import Algorithm
from peft_studio.errors import StudioError
from tests.integration.api.fixtures import Client
from tests.integration.api.studio_in_memory import CONFIG, JobsInMemory

JSON = {"Content-Type": "application/json"}
ALGORITHMS = f"Must be {', '.join(map(repr, map(str, list(Algorithm)[:-1])))} or {str(list(Algorithm)[-1])!r}"


@pytest.mark.parametrize(
    ("change", "field", "issue"),
    [
        ({"learning_rate": 1}, "learning_rate", "Must be between 1e-6 and 1e-2"),
        ({"rank": 0}, "rank", "Must be between 1 and 1024"),
        ({"rank": 10**400}, "rank", "Must be between 1 and 1024"),
        ({"seed": 2**40}, "seed", "Must be between 0 and 4294967295"),
        ({"validation_split": 0.6}, "validation_split", "Must be between 0 and 0.5"),
        ({"warmup_steps": -1}, "warmup_steps", "Must be between 0 and 1000000"),
        ({"max_steps": 0}, "max_steps", "Must be at least 1"),
        ({"alpha": 0}, "alpha", "Must be greater than 0 and at most 4096"),
        ({"dropout": 1}, "dropout", "Must be at least 0 and less than 1"),
        ({"rank": 1.5}, "rank", "Must be a valid integer"),
        ({"rank": "8"}, "rank", "Must be a valid integer"),
        ({"rank": True}, "rank", "Must be a valid integer"),
        ({"learning_rate": "1e-4"}, "learning_rate", "Must be a valid number"),
        ({"packing": 1}, "packing", "Must be a valid boolean"),
        ({"packing": "yes"}, "packing", "Must be a valid boolean"),
        ({"base_model": 7}, "base_model", "Must be a valid string"),
        ({"base_model": None}, "base_model", "Must be a valid string"),
        ({"base_model": ""}, "base_model", "Must have at least 1 character"),
        ({"algorithm": "lorra"}, "algorithm", ALGORITHMS),
        ({"learnin_rate": 1}, "learnin_rate", "Unknown field; did you mean learning_rate?"),
        ({"weather": "red"}, "weather", "Unknown field"),
        ({"deploy": {"platfrom": "local"}}, "deploy.platfrom", "Unknown field; did you mean platform?"),
        ({"deploy": 3}, "deploy", "Must be an object"),
        ({"target_modules": ["q", ""]}, "target_modules.1", "Must have at least 1 character"),
        ({"target_modules": []}, "target_modules", "name at least one, or leave the field out"),
    ],
)
def test_a_wrong_configuration_is_refused_by_field(client: Client, change: dict[str, Any], field: str, issue: str):
    answer = client.post("/api/v1/jobs", json={"config": CONFIG | change})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "INVALID_CONFIG"
    assert error["details"] == {"field": field, "issue": issue, "errors": [{"field": field, "issue": issue}]}


def test_a_whole_number_may_have_a_decimal_point(client: Client) -> None:
    job_id = client.post("/api/v1/jobs", json={"config": CONFIG | {"rank": 16.0, "alpha": 32}}).json()["job_id"]
    config = client.get(f"/api/v1/jobs/{job_id}").json()["config"]
    assert (config["rank"], config["alpha"]) == (16, 32)


def test_all_mistakes_are_named_at_once(client: Client) -> None:
    answer = client.post("/api/v1/jobs", json={"config": {"base_model": "m", "rank": 0, "x": 1}, "y": 2})
    found = {error["field"]: error["issue"] for error in answer.json()["error"]["details"]["errors"]}
    assert found == {
        "dataset_path": "Required",
        "rank": "Must be between 1 and 1024",
        "x": "Unknown field",
        "y": "Unknown field",
    }


def test_a_body_of_nothing_but_mistakes_is_refused_without_a_list(client: Client) -> None:
    answer = client.post("/api/v1/jobs", json={"config": {f"field{number}": 1 for number in range(50_000)}})
    assert answer.status_code == 400
    assert len(answer.content) < 1000


def test_nothing_that_was_sent_comes_back_as_a_value(client: Client) -> None:
    answer = client.post("/api/v1/jobs", json={"config": CONFIG | {"rank": "hunter2", "deploy": {"key": "hunter2"}}})
    assert answer.status_code == 400
    assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    ("body", "field", "issue"),
    [
        (b"", "body", "Required"),
        (b"null", "body", "Required"),
        (b"{", "body", "truncated"),
        (b"\xff\xfe", "body", "malformed"),
        (b'{"config": Infinity}', "body", "malformed"),
        (b"[" * 100_000, "body", "nested"),
        (b"[]", "body", "Must be an object"),
        (b'"text"', "body", "Must be an object"),
        (b"{}", "config", "Required"),
        (b'{"config": 1}', "config", "Must be an object"),
        (b'{"config": {}}', "base_model", "Required"),
    ],
)
def test_a_body_that_cannot_be_a_request_is_refused(client: Client, body: bytes, field: str, issue: str) -> None:
    answer = client.post("/api/v1/jobs", content=body, headers=JSON)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "INVALID_CONFIG"
    assert error["details"]["field"] == field
    assert issue in error["details"]["issue"]


@pytest.mark.parametrize(
    ("path", "field", "issue"),
    [
        ("/jobs?limit=0", "limit", "Must be between 1 and 100"),
        ("/jobs?limit=101", "limit", "Must be between 1 and 100"),
        ("/jobs?limit=many", "limit", "Must be between 1 and 100"),
        ("/jobs?status=done", "status", "Must be one of pending, running, completed, failed, cancelled"),
        ("/jobs/job_1/logs?lines=0", "lines", "Must be between 1 and 10000"),
        ("/jobs/job_1/logs?lines=10001", "lines", "Must be between 1 and 10000"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(client: Client, path: str, field: str, issue: str) -> None:
    answer = client.get("/api/v1" + path)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "INVALID_CONFIG"
    assert answer.json()["error"]["details"]["errors"] == [{"field": field, "issue": issue}]


@pytest.mark.parametrize("key", ["", "x" * 201, "tab\tin it"])
def test_a_wrong_idempotency_key_is_refused(client: Client, jobs: JobsInMemory, key: str) -> None:
    answer = client.post("/api/v1/jobs", json={"config": CONFIG}, headers={"Idempotency-Key": key})
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["field"] == "Idempotency-Key"
    assert not jobs.jobs


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        ("GET", "/api/v1/nothing", {}, 404, "NOT_FOUND"),
        ("GET", "/", {}, 404, "NOT_FOUND"),
        ("GET", "/api/v1/jobs/job_0", {}, 404, "JOB_NOT_FOUND"),
        ("GET", "/api/v1/jobs/job_0/logs", {}, 404, "JOB_NOT_FOUND"),
        ("POST", "/api/v1/jobs/job_0/cancel", {}, 404, "JOB_NOT_FOUND"),
        ("DELETE", "/api/v1/jobs", {}, 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/healthz", {}, 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/api/v1/jobs", {"Content-Type": "text/plain"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("POST", "/api/v1/jobs", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
    ],
)
def test_a_wrong_address_method_or_format_is_refused(
    client: Client, method: str, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    answer = client.request(method, path, headers=headers, content=b"{}" if headers else None)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"].keys() == {"code", "message", "details"}


def test_a_wrong_method_is_told_the_right_ones(client: Client) -> None:
    assert {"GET", "POST"} <= set(client.delete("/api/v1/jobs").headers["Allow"].split(", "))


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.InvalidConfig, 400),
        (errors.AuthenticationFailed, 401),
        (errors.InsufficientCredits, 402),
        (errors.PermissionDenied, 403),
        (errors.NotFound, 404),
        (errors.JobNotFound, 404),
        (errors.Conflict, 409),
        (errors.PlatformNotConnected, 409),
        (errors.PayloadTooLarge, 413),
        (errors.RateLimitExceeded, 429),
        (errors.ResourceUnavailable, 503),
    ],
)
def test_an_error_of_the_domain_has_its_status(
    client: Client, jobs: JobsInMemory, kind: type[StudioError], status: int
) -> None:
    jobs.trouble = kind("Something is the matter; do this.", field="provider", row=3)
    answer = client.post("/api/v1/jobs", json={"config": CONFIG})
    assert answer.status_code == status
    assert answer.json() == {
        "error": {
            "code": kind.code,
            "message": "Something is the matter; do this.",
            "details": {"field": "provider", "row": 3},
        }
    }


def test_details_that_are_no_json_are_printed(client: Client, jobs: JobsInMemory) -> None:
    jobs.trouble = errors.Conflict("No.", reason=ValueError("odd"))
    assert client.get("/api/v1/jobs").json()["error"]["details"] == {"reason": "odd"}


def test_an_error_that_passes_says_when_to_come_back(client: Client, jobs: JobsInMemory) -> None:
    jobs.trouble = errors.ResourceUnavailable("Full.", retry_after_seconds=7)
    assert client.get("/api/v1/jobs").headers["Retry-After"] == "7"


@pytest.mark.parametrize("trouble", [RuntimeError("hunter2"), errors.InternalError("hunter2"), errors.TrainingFailed()])
def test_our_own_fault_is_answered_with_a_reference_into_the_log(
    client: Client, jobs: JobsInMemory, caplog: pytest.LogCaptureFixture, trouble: Exception
) -> None:
    jobs.trouble = trouble
    with caplog.at_level(logging.ERROR):
        answer = client.post("/api/v1/jobs", json={"config": CONFIG | {"test_prompt": "swordfish"}})
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert error["code"] == "INTERNAL_ERROR"
    assert list(error["details"]) == ["reference"]
    assert "hunter2" not in answer.text
    (record,) = (record for record in caplog.records if record.name == "api.errors")
    assert error["details"]["reference"] in record.getMessage()
    assert record.exc_info and record.exc_info[1] is trouble
    assert "writes" not in caplog.text and "swordfish" not in caplog.text  # neither the key nor the body


def test_health_is_told_apart_from_readiness(connect: Any, jobs: JobsInMemory) -> None:
    client = connect(None)
    assert client.get("/readyz").json() == {"status": "ready"}
    jobs.trouble = errors.ResourceUnavailable("No worker takes jobs.")
    assert client.get("/healthz").json() == {"status": "ok"}
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "RESOURCE_UNAVAILABLE"


def test_errors_are_json(client: Client) -> None:
    answer = client.get("/api/v1/nothing")
    assert answer.headers["Content-Type"] == "application/json"
    assert json.loads(answer.content)["error"]["details"] == {}
