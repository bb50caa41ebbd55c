"""Rented machines over HTTP: what a connected vendor offers and what that costs, from its simulator."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.simulators.accounts import GOOD
from infra.simulators.faults import Fault, FaultKind, Faults
from infra.simulators.loopback import served
from infra.simulators.vendors import SIMULATED
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.machines import measured


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def client(connect: Connect, tmp_path: Path, faults: Faults) -> Iterator[Client]:
    measured(tmp_path)
    vendor = SIMULATED["runpod"]
    cloud = vendor.cloud(faults)
    with served(vendor.application(cloud)) as address:
        client = connect(data_dir=tmp_path, platform_urls={"runpod": f"{address}/runpod"})
        answer = client.post("/api/v1/platforms/runpod/connect", json={"credentials": {"api_key": GOOD}})
        assert answer.status_code == 200
        yield client
    cloud.close()


def listed(client: Client, query: str = "") -> dict[str, Any]:
    answer = client.get(f"/api/v1/resources{query}")
    assert answer.status_code == 200
    return answer.json()


def whole(client: Client, query: str = "") -> list[dict[str, Any]]:
    """Look until the vendor has answered."""
    for _ in range(50):
        if not (found := listed(client, query))["unavailable_providers"]:
            return found["resources"]
    raise AssertionError(found)


def test_a_vendors_machines_are_listed_beside_this_one(client: Client) -> None:
    found = whole(client)
    assert {one["provider"] for one in found} == {"local", "runpod"}
    assert found[0]["id"] == "local"
    rented = [one for one in found if one["provider"] == "runpod"]
    assert len({one["id"] for one in rented}) == len(rented)
    assert all(one["pricing"]["hourly_rate"] > 0 and one["pricing"]["billing_increment"] == 1 for one in rented)
    assert all(one["cpu_cores"] is None for one in rented)  # not told before a machine is rented
    assert whole(client, "?provider=runpod") == rented
    assert [one["id"] for one in whole(client, "?provider=local")] == ["local"]
    free = whole(client, "?provider=runpod&available=true")
    assert free == [one for one in rented if one["available"]]


def test_a_vendor_that_refuses_the_key_is_named_and_the_rest_is_shown(client: Client, faults: Faults) -> None:
    faults.add(Fault(kind=FaultKind.REVOKED_KEY))
    for _ in range(50):
        found = listed(client)
        if "refused" in found["unavailable_providers"][0]["reason"]:
            break
    assert found["unavailable_providers"][0]["provider"] == "runpod"
    assert "refused" in found["unavailable_providers"][0]["reason"]
    assert [one["id"] for one in found["resources"]] == ["local"]
    assert GOOD not in str(found)


def test_pricing_is_that_of_the_list(client: Client) -> None:
    one = next(one for one in whole(client, "?provider=runpod") if one["available"])
    answer = client.get(f"/api/v1/resources/runpod/{one['id']}/pricing")
    assert answer.status_code == 200
    assert answer.json()["pricing"] == one["pricing"]
    availability = answer.json()["availability"]
    assert (availability["available"], availability["queue_length"]) == (True, 0)
    assert availability["estimated_wait_minutes"] > 0


def test_an_unknown_machine_is_answered_with_close_ones(client: Client) -> None:
    known = [one["id"] for one in whole(client, "?provider=runpod")]
    answer = client.get(f"/api/v1/resources/runpod/{known[0]}0/pricing")
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert error["details"]["field"] == "resource_id"
    assert known[0] in error["message"]


def test_the_aliases_of_a_provider_name_it_too(client: Client) -> None:
    assert whole(client, "?provider=RunPod") == whole(client, "?provider=runpod")
