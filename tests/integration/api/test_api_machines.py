"""Rented machines over HTTP."""

from typing import Any

import pytest

from infra.simulators.accounts import GOOD
from infra.simulators.cloud import Cloud
from infra.simulators.runpod import create_runpod
from peft_studio.machines import MachineStatus
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.studio_in_memory import MachinesInMemory, receipt
from tests.loopback import on_loopback

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
def test_machines_are_listed_newest_first(connect: Connect, query: dict[str, Any], providers: list[str]) -> None:
    two = MachinesInMemory(receipt(1, MachineStatus.GONE, "runpod"), receipt(2, MachineStatus.READY, "vast"))
    answer = connect(machines=two).get(PATH, params=query)
    assert answer.status_code == 200
    assert [one["provider"] for one in answer.json()["machines"]] == providers


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "many"}, {"active": "perhaps"}])
def test_a_query_that_cannot_be_is_refused_by_its_field(client: Client, query: dict[str, Any]) -> None:
    answer = client.get(PATH, params=query)
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, *query)


@pytest.mark.parametrize(
    ("status", "replaced", "forgotten"),
    [(MachineStatus.READY, 409, 409), (MachineStatus.STRANDED, 200, 409), (MachineStatus.GONE, 200, 200)],
)
def test_an_account_is_not_let_go_of_while_machines_are_rented_with_it(
    connect: Connect, status: MachineStatus, replaced: int, forgotten: int
) -> None:
    cloud, machines = Cloud(), MachinesInMemory()
    with on_loopback(create_runpod(cloud)) as address:
        client = connect("rules", machines=machines, platform_urls={"runpod": f"{address}/runpod"})
        credentials = {"credentials": {"api_key": GOOD}}
        assert client.post("/api/v1/platforms/runpod/connect", json=credentials).status_code == 200
        machines.kept.append(receipt(1, status, "runpod"))  # which these credentials do not show
        again = client.post("/api/v1/platforms/runpod/connect", json=credentials)
        assert again.status_code == replaced, again.text
        assert client.delete("/api/v1/platforms/runpod").status_code == forgotten
    cloud.close()


def test_a_stranded_machine_of_a_lost_account_is_settled_by_an_admin_and_that_is_recorded(connect: Connect) -> None:
    machines = MachinesInMemory(receipt(1, MachineStatus.STRANDED, "runpod"), receipt(2, MachineStatus.READY, "vast"))
    stranded, at_work = machines.kept
    admin = connect("rules", machines=machines)
    answer = admin.post(f"{PATH}/{stranded.name}/settle", json={"cost": 1.5})
    assert answer.status_code == 200, answer.text
    closed = answer.json()
    assert (closed["status"], closed["cost"], closed["cost_from"]) == ("gone", 1.5, "person")
    assert closed["settled_by"] == "rules" and closed["gone_at"]
    assert [one["name"] for one in admin.get(PATH, params={"active": "true"}).json()["machines"]] == [at_work.name]
    assert admin.post(f"{PATH}/{stranded.name}/settle", json={"cost": 1.5}).status_code == 404
    refused = admin.post(f"{PATH}/{at_work.name}/settle", json={"cost": 1.5})
    assert (refused.status_code, refused.json()["error"]["details"]["status"]) == (409, "ready")


@pytest.mark.parametrize("cost", [-1, "much", None])
def test_a_machine_is_settled_for_what_can_have_been_paid(connect: Connect, cost: object) -> None:
    machines = MachinesInMemory(receipt(1, MachineStatus.STRANDED, "runpod"))
    path = f"{PATH}/{machines.kept[0].name}/settle"
    answer = connect("rules", machines=machines).post(path, json={"cost": cost})
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, "cost")
    assert connect("writes", machines=machines).post(path, json={"cost": 1}).status_code == 403
    assert machines.kept[0].status is MachineStatus.STRANDED
