"""The API's description of itself."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.integration.api.fixtures import Connect


@pytest.fixture
def document(connect: Connect) -> dict[str, Any]:
    return connect(None).get("/api/v1/openapi.json").json()


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    paths = document["paths"].items()
    return [(f"{method} {path}", operation) for path, item in paths for method, operation in item.items()]


def test_every_route_is_described(document: dict[str, Any]) -> None:
    names = {name for name, _ in operations(document)}
    assert names >= {
        "post /api/v1/jobs",
        "get /api/v1/jobs",
        "get /api/v1/jobs/{job_id}",
        "post /api/v1/jobs/{job_id}/cancel",
        "get /api/v1/jobs/{job_id}/logs",
        "get /healthz",
        "get /readyz",
    }
    for name, operation in operations(document):
        assert operation["summary"] and operation["description"] and operation["tags"], name


def test_every_route_of_the_api_shows_an_answer_and_its_errors(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        if "/api/v1/" not in name:
            continue
        assert {"401", "429", "500", "503"} <= operation["responses"].keys(), name
        for status, answer in operation["responses"].items():
            if "content" not in answer:
                assert status in ("204", "304") or name.startswith("head "), name
                continue
            if name.endswith(("/download", "get /api/v1/experiments/compare")) and int(status) < 400:
                continue  # a file
            [content] = answer["content"].values()
            assert content["examples"], (name, status)
            if int(status) >= 400:
                assert content["schema"] == {"$ref": "#/components/schemas/ErrorBody"}


def test_every_post_takes_an_idempotency_key_and_may_be_refused_for_it(document: dict[str, Any]) -> None:
    assert document["components"]["parameters"]["IdempotencyKey"]["name"] == "Idempotency-Key"
    for name, operation in operations(document):
        shared = {"$ref": "#/components/parameters/IdempotencyKey"} in operation.get("parameters", [])
        assert shared == (name.startswith("post ") and name != "post /api/v1/tickets"), name
        if shared:
            assert "409" in operation["responses"], name


def test_every_request_with_a_json_body_shows_one(document: dict[str, Any]) -> None:
    shown = 0
    for name, operation in operations(document):
        if body := operation.get("requestBody", {}).get("content", {}).get("application/json"):
            assert body.get("examples") or body["schema"].get("examples"), name
            shown += 1
    assert shown
    body = document["paths"]["/api/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"]["examples"][0]["config"]["algorithm"] == "lora"


def test_a_body_that_may_be_left_out_is_described_so(document: dict[str, Any]) -> None:
    bodies = {name: operation["requestBody"] for name, operation in operations(document) if "requestBody" in operation}
    assert bodies["post /api/v1/jobs/{job_id}/clone"]["required"] is False
    assert bodies["post /api/v1/jobs"]["required"] is True


def test_the_limits_of_all_fields_are_told(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    config = schemas["TrainingConfig"]
    assert config["additionalProperties"] is False
    modules = config["properties"]["target_modules"]
    assert modules["minItems"] == 1
    assert modules["anyOf"][0]["items"]["maxLength"] == 200
    assert config["properties"]["rank_pattern"]["additionalProperties"] is False
    changes = schemas["CloneJob"]["properties"]["config"]
    assert changes["properties"].keys() == config["properties"].keys()
    assert "required" not in changes and "default" not in changes["properties"]["rank"]


def test_nothing_is_described_that_is_not_there(document: dict[str, Any]) -> None:
    places = re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document))
    assert len(places) > 100
    for place in {*places}:
        found: Any = document
        for name in place.split("/"):
            found = found[name]


def test_headers_of_answers_are_described_and_there(document: dict[str, Any], connect: Connect) -> None:
    described = document["paths"]["/api/v1/jobs"]["get"]["responses"]
    answer = connect().get("/api/v1/jobs")
    assert described["200"]["headers"].keys() == {"RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"}
    assert all(answer.headers[name].isdecimal() for name in described["200"]["headers"])
    refused = connect(None).get("/api/v1/jobs")
    assert [name for name in described["401"]["headers"] if name not in refused.headers] == []
    assert "Retry-After" in described["429"]["headers"]
    assert "headers" not in document["paths"]["/healthz"]["get"]["responses"]["200"]


def test_parameters_are_left_out_and_never_null(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert "null" not in json.dumps(parameter.get("schema", {})), name


def test_keys_are_asked_for_everywhere_but_by_probes(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert document["security"] == [{"bearer": []}]
    for name, operation in operations(document):
        assert operation.get("security", document["security"]) == ([{}] if "z" in name else [{"bearer": []}])


def test_the_page_and_all_that_it_loads_come_from_the_api_itself(connect: Connect) -> None:
    client = connect(None)
    page = client.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "/api/v1/jobs" in page.text
    loaded = re.findall(r'\b(?:src|href|action)="([^"]*)"', page.text)
    assert len(loaded) == 3
    for address in loaded:
        assert address.startswith("/docs/assets/") or address == "data:,"
        if address.startswith("/"):
            assert len(client.get(address).content) > 100_000
    style = client.get("/docs/assets/swagger-ui.css").text
    assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", style)
    assert "SwaggerUIBundle" in client.get("/docs/assets/swagger-ui-bundle.js").text


def test_nothing_in_the_document_can_end_the_pages_script(connect: Connect) -> None:
    page = connect(None).get("/docs").text
    assert page.count("</script>") == 2


def test_the_api_starts_without_what_trains() -> None:
    heavy = "{'torch', 'transformers', 'peft', 'datasets', 'matplotlib'}"
    code = f"import sys, api.app; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
