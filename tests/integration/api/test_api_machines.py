"""Rented machines over HTTP."""

from typing import Any

import pytest

from tests.integration.api.fixtures import Client

PATH = "/api/v1/machines"


@pytest.mark.parametrize(
    ("query", "providers"),
    [
        ({}, ["vast", "runpod"]),
        ({"active": "true"}, ["vast"]),
        ({"provider": "runpod"}, ["runpod"]),
        ({"active": "true", "provider": "runpod"}, []),
        ({"limit": "1"}, ["vast"]),
    ],
)
def test_machines_are_listed_newest_first(client: Client, query: dict[str, Any], providers: list[str]) -> None:
    answer = client.get(PATH, params=query)
    assert answer.status_code == 200
    assert [one["provider"] for one in answer.json()["machines"]] == providers


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "many"}, {"active": "perhaps"}])
def test_a_query_that_cannot_be_is_refused_by_its_field(client: Client, query: dict[str, Any]) -> None:
    answer = client.get(PATH, params=query)
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, *query)
