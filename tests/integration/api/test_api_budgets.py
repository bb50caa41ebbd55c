"""Budgets over HTTP: set by admins, seen by all; and jobs submitted under a key."""

from typing import Any

import pytest

from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.studio_in_memory import CONFIG, JobsInMemory

PATH = "/api/v1/budgets"
WRITES = "000000000002"


@pytest.fixture
def admin(connect: Connect) -> Client:
    return connect("rules")


def budget(**changes: Any) -> dict[str, Any]:
    return {"scope": "project", "id": "support", "monthly_usd": 50} | changes


def test_budgets_are_those_that_were_put_last(admin: Client) -> None:
    assert admin.get(PATH).json() == {"budgets": []}
    both = {"budgets": [budget(), budget(scope="key", id=WRITES, monthly_usd=7.5)]}
    answer = admin.put(PATH, json=both)
    assert answer.status_code == 200
    shown = [one | {"spent_usd": 0.0, "held_usd": 0.0} for one in both["budgets"]]
    assert answer.json() == admin.get(PATH).json() == {"budgets": shown}
    assert admin.put(PATH, json={"budgets": []}).json() == {"budgets": []}


def test_only_admins_set_budgets_and_all_see_them(admin: Client) -> None:
    admin.put(PATH, json={"budgets": [budget()]})
    for key in ("reads", "writes"):
        headers = {"Authorization": f"Bearer {key}"}
        assert len(admin.get(PATH, headers=headers).json()["budgets"]) == 1
        refused = admin.put(PATH, json={"budgets": []}, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "PERMISSION_DENIED")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"budgets": [budget(monthly_usd=0)]}, "budgets.0.monthly_usd"),
        ({"budgets": [budget(), budget(id="b", monthly_usd=-5)]}, "budgets.1.monthly_usd"),
        ({"budgets": [budget(monthly_usd="much")]}, "budgets.0.monthly_usd"),
        ({"budgets": [budget(scope="person")]}, "budgets.0.scope"),
        ({"budgets": [budget(id="")]}, "budgets.0.id"),
        ({"budgets": [budget(scope="key", id="nobody")]}, "budgets.0.id"),
        ({"budgets": [budget(), budget(monthly_usd=7)]}, "budgets.1.id"),
        ({"budgets": [budget(spent_usd=0)]}, "budgets.0.spent_usd"),
        ({}, "budgets"),
    ],
)
def test_a_budget_that_cannot_be_is_refused_by_field(admin: Client, given: dict[str, Any], field: str) -> None:
    answer = admin.put(PATH, json=given)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["details"]["field"]) == ("INVALID_CONFIG", field)
    assert admin.get(PATH).json() == {"budgets": []}


def test_a_job_is_submitted_under_the_key_that_asked_for_it(client: Client, jobs: JobsInMemory) -> None:
    made = client.post("/api/v1/jobs", json={"config": CONFIG}).json()
    client.post(f"/api/v1/jobs/{made['job_id']}/clone")
    assert jobs.submitted_by == [WRITES, WRITES]
