"""Rented machines over HTTP: what a connected vendor offers and what that costs, from its simulator."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.simulators.accounts import GOOD
from infra.simulators.faults import Fault, FaultKind, Faults
from infra.simulators.loopback import served
from infra.simulators.vendors import SIMULATED
from tests.integration.api.fixtures import Client, Connect
from tests.measured_machine import measured
from tests.model_folders import write_model


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


def test_whether_a_machine_with_several_gpus_is_to_be_had_its_pricing_asks_its_vendor(client: Client) -> None:
    free = {one["id"] for one in whole(client, "?provider=runpod&available=true")}
    assert {"gpu-h100-80gb", "gpu-h100-80gb-x2"} <= free  # by the stock of single ones
    said = client.get("/api/v1/resources/runpod/gpu-h100-80gb-x2/pricing").json()
    assert (said["availability"]["available"], said["availability"]["estimated_wait_minutes"]) == (False, None)
    assert said["pricing"]["hourly_rate"] > 0


def test_an_unknown_machine_is_answered_with_close_ones(client: Client) -> None:
    known = [one["id"] for one in whole(client, "?provider=runpod")]
    answer = client.get(f"/api/v1/resources/runpod/{known[0]}0/pricing")
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert error["details"]["field"] == "resource_id"
    assert known[0] in error["message"]


def test_the_aliases_of_a_provider_name_it_too(client: Client) -> None:
    assert whole(client, "?provider=RunPod") == whole(client, "?provider=runpod")


@pytest.fixture
def job(tmp_path: Path) -> dict[str, Any]:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": f"The number {number}"}) + "\n" for number in range(50)))
    return {
        "base_model": str(write_model(tmp_path / "model")),
        "model_source": "local",
        "dataset_path": str(rows),
        "provider": "runpod",
    }


def test_a_plan_shows_where_it_costs_least_to_finish(client: Client, job: dict[str, Any]) -> None:
    answer = client.post("/api/v1/jobs/plan", json={"config": job})
    assert answer.status_code == 200
    plan = answer.json()
    assert len(plan["offers"]) == 3
    best = plan["offers"][0]
    assert best["provider"] == "runpod"
    assert plan["estimate"] == best["estimate"]
    assert plan["estimate"]["cost"]["expected"] == plan["estimated_cost"] > 0
    costs = [one["estimate"]["cost"]["expected"] for one in plan["offers"]]
    assert costs == sorted(costs)
    named = client.post("/api/v1/jobs/plan", json={"config": job | {"resource_id": plan["offers"][2]["resource_id"]}})
    assert named.json()["estimate"] == plan["offers"][2]["estimate"]


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"resource_id": "gpu-9000"}, "resource_id"),
        ({"spot": True}, "spot"),
        ({"max_cost": 0}, "max_cost"),
        ({"max_cost": 0.000001}, "max_cost"),
        ({"max_duration": 0.001}, "max_duration"),
        ({"num_processes": 64}, "num_processes"),
        ({"provider": "local", "spot": True}, "spot"),
    ],
)
def test_what_cannot_be_had_is_refused_by_field(
    client: Client, job: dict[str, Any], wish: dict[str, Any], field: str
) -> None:
    answer = client.post("/api/v1/jobs/plan", json={"config": job | wish})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["details"]["field"]) == ("INVALID_CONFIG", field)


def test_a_provider_that_is_not_connected_is_said_to_be(client: Client, job: dict[str, Any]) -> None:
    answer = client.post("/api/v1/jobs/plan", json={"config": job | {"provider": "vast"}})
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "PLATFORM_NOT_CONNECTED"
    assert answer.json()["error"]["details"]["field"] == "provider"
