"""API keys over HTTP, for those who may."""

from typing import Any

import pytest
from litestar.testing import TestClient

from api.app import create_app
from infra.settings import Settings
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.studio_in_memory import JobsInMemory, KeysInMemory

PATH = "/api/v1/keys"


@pytest.fixture
def admin(connect: Connect) -> Client:
    return connect("rules")


def test_a_key_is_made_works_and_is_revoked(admin: Client) -> None:
    made = admin.post(PATH, json={"name": "laptop", "role": "read"})
    assert made.status_code == 201
    key = made.json()
    assert (key["name"], key["role"], key["revoked_at"], key["last_used_at"]) == ("laptop", "read", None, None)
    headers = {"Authorization": f"Bearer {key['key']}"}
    assert admin.get("/api/v1/jobs", headers=headers).status_code == 200
    assert admin.delete(f"{PATH}/{key['id']}").json() == {"success": True, "id": key["id"]}
    assert admin.get("/api/v1/jobs", headers=headers).status_code == 401
    assert admin.delete(f"{PATH}/{key['id']}").status_code == 404


def test_keys_are_listed_without_their_secrets_page_by_page(admin: Client) -> None:
    secret = admin.post(PATH, json={"name": "laptop"}).json()["key"]
    page = admin.get(f"{PATH}?limit=3").json()
    rest = admin.get(f"{PATH}?limit=3&cursor={page['next_cursor']}")
    names = [key["name"] for key in page["keys"] + rest.json()["keys"]]
    assert names == ["reads", "writes", "rules", "laptop"]
    assert rest.json()["next_cursor"] is None
    assert secret not in admin.get(PATH).text


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": " me"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "me", "role": "god"}, "role"),
        ({"name": "me", "secret": "mine"}, "secret"),
    ],
)
def test_a_wrong_request_is_refused_by_field(admin: Client, body: Any, field: str) -> None:
    answer = admin.post(PATH, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["field"] == field
    assert len(admin.get(PATH).json()["keys"]) == 3


def test_a_name_is_given_once(admin: Client) -> None:
    assert admin.post(PATH, json={"name": "writes"}).status_code == 409


def test_a_cursor_that_is_none_is_refused(admin: Client) -> None:
    assert admin.get(f"{PATH}?cursor=x").json()["error"]["details"]["field"] == "cursor"


@pytest.mark.parametrize("key", ["reads", "writes"])
@pytest.mark.parametrize(("method", "path"), [("GET", PATH), ("POST", PATH), ("DELETE", f"{PATH}/{1:012x}")])
def test_keys_are_for_admins_only(connect: Connect, key: str, method: str, path: str) -> None:
    keys = KeysInMemory()
    answer = connect(key, keys=keys).request(method, path, json={"name": "mine", "role": "admin"})
    assert answer.status_code == 403
    assert answer.json()["error"]["details"] == {"role": {"reads": "read", "writes": "write"}[key]}
    assert all(known.revoked_at is None for known in keys.known.values()) and len(keys.known) == 3


def test_the_uses_of_keys_are_written_down_at_the_end(studio_settings: Settings) -> None:
    keys = KeysInMemory()
    with TestClient(create_app(JobsInMemory(), keys, studio_settings)):
        assert not keys.closed
    assert keys.closed
