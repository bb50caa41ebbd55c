"""Platforms over HTTP: keys are tried at the platforms themselves, here simulators on loopback."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from infra.credentials import CredentialsInMemory
from infra.platforms.vendors import VENDORS
from infra.simulators.accounts import BROKE, BUSY, GOOD, create_accounts, platform_urls
from infra.simulators.loopback import served
from tests.integration.api.fixtures import Client, Connect

CANARY = "canary-7f3a9c51e2"
WITH_KEY = sorted(name for name in VENDORS if name not in ("local", "tensorboard", "ollama", "ssh", "s3"))
SSH_LOGIN = {"hosts": "127.0.0.1:9", "user": "me", "private_key": GOOD, "known_hosts": "127.0.0.1 ssh-ed25519 AAAA"}


@pytest.fixture(scope="module")
def revoked() -> set[str]:
    return set()


@pytest.fixture(scope="module")
def vendors(revoked: set[str]) -> Iterator[str]:
    with served(create_accounts(revoked)) as address:
        yield address


@pytest.fixture
def client(connect: Connect, vendors: str) -> Client:
    return connect(platform_urls=platform_urls(vendors))


def given(name: str, key: str, address: str) -> dict[str, str]:
    """What connecting a platform takes."""
    match name:
        case "kubernetes":
            return {"url": f"{address}/kubernetes", "token": key}
        case "mlflow":
            return {"tracking_uri": f"{address}/mlflow", "token": key}
        case "trackio":
            return {"base_url": f"{address}/trackio", "write_token": key}
        case "vllm" | "lorax":
            return {"base_url": f"{address}/{name}", "api_key": key}
        case "modal":
            return {"token_id": "ak-1", "token_secret": key}
        case _:
            return {"api_key": key}


def connecting(client: Client, name: str, **credentials: Any) -> Any:
    return client.post(f"/api/v1/platforms/{name}/connect", json={"credentials": credentials})


def status(client: Client, name: str) -> str:
    return client.get(f"/api/v1/platforms/{name}").json()["status"]


def details(answer: Any) -> dict[str, Any]:
    return answer.json()["error"]["details"]


def test_this_machine_is_all_that_is_connected_at_first(client: Client) -> None:
    platforms = client.get("/api/v1/platforms").json()["platforms"]
    assert {platform["name"]: platform["status"] for platform in platforms} == {
        "local": "connected",
        "tensorboard": "connected",
        **dict.fromkeys([*WITH_KEY, "ollama", "ssh", "s3"], "disconnected"),
    }
    assert {platform["last_verified"] for platform in platforms} == {None}


@pytest.mark.parametrize("name", WITH_KEY)
def test_a_key_the_platform_takes_connects_it(client: Client, vendors: str, name: str) -> None:
    answer = connecting(client, name, **given(name, GOOD, vendors))
    assert answer.status_code == 200
    assert answer.json() == {"success": True, "platform": name, "status": "connected"}
    platform = client.get(f"/api/v1/platforms/{name}").json()
    assert platform["status"] == "connected"
    assert platform["last_verified"].endswith("Z")


@pytest.mark.parametrize("name", WITH_KEY)
def test_a_key_the_platform_refuses_is_told_from_a_bad_key_of_ours(client: Client, vendors: str, name: str) -> None:
    answer = connecting(client, name, **given(name, "wrong-key", vendors))
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "AUTHENTICATION_FAILED"
    others = {"kubernetes": "token", "mlflow": "token", "trackio": "write_token", "modal": "token_secret"}
    field = f"credentials.{others.get(name, 'api_key')}"
    assert details(answer) == {"platform": name, "field": field}
    assert "WWW-Authenticate" not in answer.headers
    assert "wrong-key" not in answer.text
    assert status(client, name) == "disconnected"


@pytest.mark.parametrize("name", WITH_KEY)
def test_an_account_without_credit_is_told_to_top_up(client: Client, vendors: str, name: str) -> None:
    answer = connecting(client, name, **given(name, BROKE, vendors))
    assert (answer.status_code, answer.json()["error"]["code"]) == (402, "INSUFFICIENT_CREDITS")
    assert status(client, name) == "disconnected"


@pytest.mark.parametrize("name", WITH_KEY)
def test_a_platform_that_is_asked_too_often_says_when_to_come_back(client: Client, vendors: str, name: str) -> None:
    answer = connecting(client, name, **given(name, BUSY, vendors))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "RESOURCE_UNAVAILABLE")
    assert answer.headers["Retry-After"] == ("10" if name == "modal" else "7")  # Modal does not say when


def test_ollama_needs_no_key(client: Client, vendors: str) -> None:
    assert connecting(client, "ollama").json()["status"] == "connected"
    assert connecting(client, "ollama", base_url=f"{vendors}/ollama/").json()["status"] == "connected"


def test_a_tracking_server_may_ask_for_a_password_or_for_nothing(client: Client, vendors: str) -> None:
    where = f"{vendors}/mlflow"
    assert connecting(client, "mlflow", tracking_uri=where, username="a", password=GOOD).status_code == 200
    answer = connecting(client, "mlflow", tracking_uri=where, username="a", password="wrong")
    assert details(answer)["field"] == "credentials.password"
    assert details(connecting(client, "mlflow", tracking_uri=where))["field"] == "credentials.token"


def test_other_names_of_a_platform_are_understood(client: Client) -> None:
    assert connecting(client, "Lambda_Labs", api_key=GOOD).json()["platform"] == "lambda"
    assert status(client, "lambda_labs") == "connected"


def test_connecting_again_replaces_and_a_failed_one_leaves_what_was(
    client: Client, credentials: CredentialsInMemory
) -> None:
    def kept() -> dict[str, str]:
        (kept,) = credentials._kept.values()  # pyright: ignore[reportPrivateUsage]
        return kept.reveal()

    assert connecting(client, "wandb", api_key=f" {GOOD}\n").status_code == 200
    assert kept() == {"api_key": GOOD}
    for key in ("wrong-key", BROKE, BUSY):
        assert connecting(client, "wandb", api_key=key).status_code >= 400
        assert kept() == {"api_key": GOOD}
        assert status(client, "wandb") == "connected"


def test_disconnecting_forgets(client: Client, credentials: CredentialsInMemory) -> None:
    connecting(client, "runpod", api_key=GOOD)
    answer = client.delete("/api/v1/platforms/runpod")
    assert (answer.status_code, answer.json()) == (200, {"success": True, "message": "Platform disconnected"})
    assert status(client, "runpod") == "disconnected"
    again = client.delete("/api/v1/platforms/runpod")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "PLATFORM_NOT_CONNECTED")


def test_this_machine_cannot_be_disconnected(client: Client) -> None:
    answer = client.delete("/api/v1/platforms/local")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "CONFLICT")
    assert connecting(client, "local").json()["status"] == "connected"
    assert details(connecting(client, "local", api_key="k"))["field"] == "credentials.api_key"


def test_a_key_that_was_revoked_shows_as_an_error_once_it_is_checked(client: Client, revoked: set[str]) -> None:
    connecting(client, "comet", api_key=GOOD)
    first = client.get("/api/v1/platforms/comet").json()["last_verified"]
    revoked.add("comet")
    checked = client.post("/api/v1/platforms/comet/verify").json()
    assert (checked["status"], checked["last_verified"]) == ("error", first)
    assert "refused" in checked["error"]
    assert client.get("/api/v1/platforms/comet").json()["status"] == "error"
    revoked.remove("comet")
    again = client.post("/api/v1/platforms/comet/verify").json()
    assert again["status"] == "connected" and "error" not in again
    assert again["last_verified"] >= first


def test_a_platform_that_is_away_when_it_is_checked_changes_nothing(
    connect: Connect, client: Client, vendors: str
) -> None:
    connecting(client, "comet", api_key=GOOD)
    away = connect(platform_urls={"comet": "http://127.0.0.1:9"})
    assert away.post("/api/v1/platforms/comet/verify").status_code == 503
    assert status(client, "comet") == "connected"


@pytest.mark.parametrize(("method", "path"), [("POST", "/verify"), ("DELETE", "")])
def test_what_was_never_connected_is_not_checked(client: Client, method: str, path: str) -> None:
    answer = client.request(method, f"/api/v1/platforms/runpod{path}")
    assert (answer.status_code, details(answer)["platform"]) == (409, "runpod")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("DELETE", ""), ("POST", "/verify"), ("POST", "/connect")],
)
@pytest.mark.parametrize("name", ["nobody", "runpodd", "%F0%9F%A6%99", "x" * 5000, "..%2F..%2Fetc", "run%00pod"])
def test_an_unknown_platform_is_not_found(client: Client, method: str, path: str, name: str) -> None:
    body = {"credentials": {"api_key": GOOD}} if path == "/connect" else None
    answer = client.request(method, f"/api/v1/platforms/{name}{path}", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) in [(404, "NOT_FOUND"), (405, "METHOD_NOT_ALLOWED")]
    assert len(answer.content) < 1000


def test_a_misspelt_platform_is_guessed(client: Client) -> None:
    assert "did you mean 'runpod'?" in client.get("/api/v1/platforms/runpodd").json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "body", "field"),
    [
        ("runpod", {}, "credentials"),
        ("runpod", {"credentials": None}, "credentials"),
        ("runpod", {"credentials": "good-key"}, "credentials"),
        ("runpod", {"credentials": ["good-key"]}, "credentials"),
        ("runpod", {"credentials": {}}, "credentials.api_key"),
        ("runpod", {"credentials": {"api_key": ""}}, "credentials.api_key"),
        ("runpod", {"credentials": {"api_key": " \n "}}, "credentials.api_key"),
        ("runpod", {"credentials": {"api_key": 7}}, "credentials.api_key"),
        ("runpod", {"credentials": {"api_key": None}}, "credentials.api_key"),
        ("runpod", {"credentials": {"api_key": {"a": 1}}}, "credentials.api_key"),
        ("runpod", {"credentials": {"api_key": "gööd-key"}}, "credentials.api_key"),
        ("runpod", {"credentials": {"api_key": "good\r\nX-Other: key"}}, "credentials.api_key"),
        ("runpod", {"credentials": {"api_key": "good\x00key"}}, "credentials.api_key"),
        ("runpod", {"credentials": {"api_key": "k" * 20_000}}, "credentials.api_key"),
        ("runpod", {"credentials": {"api_key": GOOD, "token": "t"}}, "credentials.token"),
        ("runpod", {"credentials": {"api_key": GOOD}, "force": True}, "force"),
        ("kubernetes", {"credentials": {"token": GOOD}}, "credentials.url"),
        ("kubernetes", {"credentials": {"token": GOOD, "url": "ftp://host"}}, "credentials.url"),
        ("kubernetes", {"credentials": {"token": GOOD, "url": "https://a:b@host"}}, "credentials.url"),
        ("kubernetes", {"credentials": {"token": GOOD, "url": "https://host:99999"}}, "credentials.url"),
        ("kubernetes", {"credentials": {"token": GOOD, "url": "https://[::1"}}, "credentials.url"),
        ("kubernetes", {"credentials": {"token": GOOD, "url": "file:///etc/passwd"}}, "credentials.url"),
        (
            "kubernetes",
            {"credentials": {"token": GOOD, "url": "https://host", "ca_certificate": "no\nPEM"}},
            "credentials.ca_certificate",
        ),
        (
            "kubernetes",
            {"credentials": {"token": GOOD, "url": "https://host", "hourly_rate": "two dollars"}},
            "credentials.hourly_rate",
        ),
        ("ssh", {"credentials": SSH_LOGIN | {"hosts": "user@host"}}, "credentials.hosts"),
        ("ssh", {"credentials": SSH_LOGIN | {"hosts": "host:99999"}}, "credentials.hosts"),
        ("ssh", {"credentials": SSH_LOGIN | {"hosts": "host:22/path"}}, "credentials.hosts"),
        ("ssh", {"credentials": SSH_LOGIN | {"hosts": ","}}, "credentials.hosts"),
        ("ssh", {"credentials": SSH_LOGIN}, "credentials.private_key"),
        ("ssh", {"credentials": SSH_LOGIN | {"user": ""}}, "credentials.user"),
        ("ssh", {"credentials": SSH_LOGIN | {"known_hosts": ""}}, "credentials.known_hosts"),
        ("ollama", {"credentials": {"base_url": "localhost:11434"}}, "credentials.base_url"),
        ("mlflow", {"credentials": {"tracking_uri": "http://host/?key=1"}}, "credentials.tracking_uri"),
    ],
)
def test_credentials_that_cannot_be_are_refused_by_field(client: Client, name: str, body: Any, field: str) -> None:
    answer = client.post(f"/api/v1/platforms/{name}/connect", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "INVALID_CONFIG"
    assert details(answer)["field"] == field
    assert GOOD not in answer.text
    assert status(client, name) == "disconnected"


def test_a_megabyte_of_credentials_is_too_much(client: Client) -> None:
    assert connecting(client, "runpod", api_key="k" * (1 << 20)).status_code == 413


def test_thousands_of_credentials_are_refused(client: Client) -> None:
    answer = connecting(client, "runpod", **{f"field{number}": "x" for number in range(10_000)})
    assert answer.status_code == 400
    assert len(answer.content) < 1000


def test_only_a_key_that_may_write_connects(connect: Connect, vendors: str) -> None:
    reader = connect("reads", platform_urls=platform_urls(vendors))
    assert connecting(reader, "runpod", api_key=GOOD).status_code == 403
    assert reader.delete("/api/v1/platforms/runpod").status_code == 403
    assert reader.get("/api/v1/platforms").status_code == 200


def test_a_platform_that_is_away_is_no_fault_of_the_key(connect: Connect) -> None:
    client = connect(platform_urls={"runpod": "http://127.0.0.1:9"})
    answer = connecting(client, "runpod", api_key=GOOD)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "RESOURCE_UNAVAILABLE")


def test_something_else_that_answers_200_is_not_taken_for_the_platform(client: Client, vendors: str) -> None:
    answer = connecting(client, "ollama", base_url=f"{vendors}/mlflow")
    assert answer.status_code == 503
    answer = connecting(client, "wandb", api_key=GOOD, base_url=f"{vendors}/ollama")
    assert answer.status_code == 503
    assert status(client, "wandb") == "disconnected"


@pytest.mark.parametrize("name", WITH_KEY)
def test_a_key_is_in_no_answer_and_no_log(
    client: Client, vendors: str, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    with caplog.at_level(logging.DEBUG):
        answers = [
            connecting(client, name, **given(name, CANARY, vendors)),
            connecting(client, name, **given(name, CANARY + "\x7f", vendors)),
            connecting(client, name, **given(name, CANARY, vendors), surplus=CANARY),
            connecting(client, name, **given(name, CANARY, "http://127.0.0.1:9")),
            client.get("/api/v1/platforms"),
        ]
    assert all(CANARY not in answer.text for answer in answers)
    assert CANARY not in caplog.text


@pytest.mark.parametrize(
    "path", ["/resources?provider=runpod", "/resources?provider=RunPod", "/resources/runpod/gpu-rtx4090/pricing"]
)
def test_machines_of_a_platform_are_known_once_it_is_connected(client: Client, path: str) -> None:
    answer = client.get(f"/api/v1{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "PLATFORM_NOT_CONNECTED")


def test_what_rents_no_machines_is_no_provider(client: Client) -> None:
    answer = client.get("/api/v1/resources?provider=comet")
    assert (answer.status_code, details(answer)["field"]) == (404, "provider")
