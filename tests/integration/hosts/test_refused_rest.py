"""A platform that refuses to have machines rest is asked to delete them all the same."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from infra.simulators.exchange import App
from infra.simulators.hosting import Hosting
from tests.integration.hosts.rows import ROWS, Row
from tests.integration.hosts.serving import serving_at

pytestmark = pytest.mark.anyio
RESTING = [row for row in ROWS if row.name in ("together", "replicate")]


@dataclass
class Restless:
    """An application that refuses every PATCH, and remembers how it was asked."""

    app: App
    asked: list[str] = field(default_factory=list[str])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope.get("method", ""))
        if scope.get("method") != "PATCH":
            return await self.app(scope, receive, send)
        await send({"type": "http.response.start", "status": 422, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b'{"detail": "min_instances: not now"}'})


@pytest.mark.parametrize("row", RESTING, ids=lambda row: row.name)
async def test_what_may_not_rest_is_asked_to_be_deleted(row: Row, tmp_path: Path) -> None:
    made: list[Restless] = []

    def restless(hosting: Hosting) -> App:
        made.append(Restless(row.simulator(hosting)))
        return made[0]

    with serving_at(replace(row, simulator=restless), tmp_path) as serving:
        wanted = serving.wanted()
        await serving.host.deploy(wanted)
        await serving.host.remove(wanted.name)
    assert made[0].asked.index("PATCH") < made[0].asked.index("DELETE")
