"""What users were promised of platforms and models: the examples of the API's document, as a table."""

from collections.abc import Iterator
from typing import Any

import pytest

from infra.simulators.accounts import GOOD, create_accounts, platform_urls
from infra.simulators.loopback import served
from tests.contract.shapes import TEXT, TIME, Shape, differences
from tests.integration.api.fixtures import Client, Connect

CONNECT = {"credentials": {"api_key": GOOD}}
PLATFORMS: list[tuple[str, str, Any, Shape]] = [
    ("POST", "/platforms/runpod/connect", CONNECT, {"success": True, "platform": "runpod", "status": "connected"}),
    (
        "GET",
        "/platforms/runpod",
        None,
        {"name": "runpod", "display_name": "RunPod", "status": "connected", "features": [TEXT], "last_verified": TIME},
    ),
    ("GET", "/platforms", None, {"platforms": [{"name": TEXT, "display_name": TEXT, "status": TEXT}]}),
    ("DELETE", "/platforms/runpod", None, {"success": True, "message": "Platform disconnected"}),
]


@pytest.fixture(scope="module")
def vendors() -> Iterator[str]:
    with served(create_accounts()) as address:
        yield address


@pytest.fixture
def client(connect: Connect, vendors: str) -> Client:
    client = connect(platform_urls=platform_urls(vendors))
    client.post("/api/v1/platforms/runpod/connect", json=CONNECT)
    return client


@pytest.mark.parametrize(("method", "path", "body", "shape"), PLATFORMS, ids=[" ".join(row[:2]) for row in PLATFORMS])
def test_an_answer_about_platforms_has_what_was_promised(
    client: Client, method: str, path: str, body: Any, shape: Shape
) -> None:
    answer = client.request(method, f"/api/v1{path}", json=body)
    assert answer.status_code == 200
    assert differences(shape, answer.json()) == []


def test_every_platform_shows_the_fields_that_were_promised(client: Client) -> None:
    for platform in client.get("/api/v1/platforms").json()["platforms"]:
        assert {"name", "display_name", "status", "features", "last_verified"} <= platform.keys()
        assert platform["features"]
