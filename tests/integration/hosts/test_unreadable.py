"""What a host makes of an address where something answers that is not its platform."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from infra.hosts.base import Hosted
from infra.simulators.exchange import Asked, Reply, application
from peft_studio.deployments import DeploymentStatus
from peft_studio.errors import StudioError
from tests.integration.hosts.rows import ROWS, Row
from tests.integration.hosts.serving import PROMPT, serving_at
from tests.integration.providers.stage import stage

pytestmark = pytest.mark.anyio
_ROWS: list[Any] = [[], [{}], [None], ["text"], [{"name": None}], 7, {"a": 1}]
_LISTS = ("data", "results", "models", "items", "endpoints", "deployments", "deployedModels", "accounts", "vendors")
UNREADABLE = [b"", b"<html>", b"\xff\xfe", b"null", b"7", b'"text"', b"[]", b"[null]", b"[{}]", b"{}"]
UNREADABLE += [json.dumps(dict.fromkeys(_LISTS, rows)).encode() for rows in _ROWS]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_what_cannot_be_read_is_an_error_of_ours(row: Row, tmp_path: Path) -> None:
    said = b""

    async def unreadable(_: Asked) -> Reply:
        return Reply(said, headers={"Content-Type": "application/json"})

    with serving_at(row, tmp_path) as serving:
        wanted = serving.wanted()
    with stage().shows(row.name, application(unreadable)) as address:
        host = row.host(row.account(address, folder=tmp_path), 0.1, 1.0)
        hosted = Hosted(name="a", status=DeploymentStatus.RUNNING, endpoint=f"{address}/v1", model="m")
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "names": host.names,
            "look": lambda: host.look("a"),
            "remove": lambda: host.remove("a"),
            "deploy": lambda: host.deploy(wanted),
            "metrics": lambda: host.metrics(hosted),
            "say": lambda: host.say(hosted, "m", "Q", 2),
            "ask": lambda: host.ask(hosted, PROMPT, chat=True, max_tokens=2, temperature=0.0),
        }
        for said in UNREADABLE:
            for name, call in calls.items():
                try:
                    await call()
                except StudioError:
                    continue
                except Exception as error:
                    pytest.fail(f"{said!r}, {name}: {error!r}")
