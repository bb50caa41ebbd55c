"""A host with a simulated platform at its other end, for tests of what they make of each other."""

import json
import time
import uuid
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from infra.hosts.base import Host, Hosted, Wanted
from infra.simulators.accounts import GOOD
from infra.simulators.exchange import App
from infra.simulators.faults import Fault, FaultKind
from infra.simulators.hosting import Hosting
from peft_studio.deployments import DeploymentConfig
from peft_studio.errors import StudioError
from peft_studio.exporter.modelfile import OllamaModel
from tests.adapter_files import shapes, write_adapter
from tests.integration.hosts.rows import Row
from tests.integration.providers.exchanges import Exchange, recorded
from tests.integration.providers.stage import stage

Found = TypeVar("Found")
WAIT_SECONDS = 20.0
IMPATIENT = 0.1
BOOT_SECONDS = 0.1
PROMPT = "Once upon a time"
CONFIG = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
_CHANGES = ("POST", "PUT", "PATCH", "DELETE")


@dataclass
class Breaking:
    """An application that does what it is asked, and fails to say so at the change of a number; -1 is none."""

    app: App
    at: int = -1
    changes: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.changes += scope["method"] in _CHANGES
        if scope["method"] not in _CHANGES or self.changes != self.at:
            return await self.app(scope, receive, send)

        async def failing(message: Any) -> None:
            if message["type"] == "http.response.start":
                await send({**message, "status": 500, "headers": [(b"content-type", b"application/json")]})
            elif message["type"] == "http.response.body":
                await send({**message, "body": b"{}"})

        return await self.app(scope, receive, failing)


@dataclass(frozen=True)
class Serving:
    """A host and the platform that it deploys to."""

    row: Row
    hosting: Hosting
    address: str
    breaking: Breaking
    folder: Path
    host: Host  # with the good key and no patience
    exchanges: list[Exchange] = field(default_factory=list[Exchange])

    def host_with(self, key: str = GOOD, patience: float = IMPATIENT, create_seconds: float = 5.0) -> Host:
        """Return the host with another key, or with patience."""
        return self.row.host(self.row.account(self.address, key, self.folder / "hosted"), patience, create_seconds)

    def fail(self, kind: FaultKind, value: float = 0.0) -> None:
        """Have something go wrong next; a platform that cannot is let off."""
        if kind in self.row.impossible:
            pytest.skip(f"{self.row.name} knows no such trouble")
        self.hosting.faults.add(Fault(kind=kind, value=value))

    def wanted(self, adapter: str = "one", **config: Any) -> Wanted:
        """Return an adapter with a name that no other has."""
        return Wanted(
            name=f"pst-{uuid.uuid4().hex[:16]}",
            folder=self._adapter(adapter),
            base_model="org/model",
            revision="b" * 40,
            rank=8,
            target_modules=("q_proj", "v_proj"),
            repository=f"me/{adapter}",
            commit="c" * 40,
            config=DeploymentConfig.model_validate(config),
        )

    async def running(self, wanted: Wanted) -> Hosted:
        """Deploy, and wait until it answers."""
        before = await self.host.deploy(wanted)
        return (await self.becomes(wanted.name, "running")).after(before)

    async def names(self) -> list[str]:
        """Return the names of what the studio has there."""
        return [name for name in await self.host.names() if name not in self.row.others]

    async def becomes(self, name: str, status: str) -> Hosted:
        """Wait until a deployment is in a state."""

        async def seen() -> Hosted | None:
            hosted = await self.host.look(name)
            return hosted if hosted is not None and hosted.status == status else None

        return await eventually(seen)

    async def cleared(self, name: str) -> None:
        """Take everything off, and see that it is gone."""
        host = self.host_with(patience=5.0)
        await host.remove(name)

        async def gone() -> bool | None:
            if await host.look(name) is None:
                return True
            await host.remove(name)
            return None

        await eventually(gone)
        assert [thing for thing in self.hosting.left() if thing.endswith(name)] == []
        assert all(bill.gone is not None for bill in self.hosting.ledger() if bill.name == name)

    async def tried(self, wanted: Wanted) -> StudioError | None:
        """Deploy, and return what went wrong."""
        try:
            await self.host_with(create_seconds=0.5).deploy(wanted)
        except StudioError as error:
            return error
        return None

    def _adapter(self, name: str) -> Path:
        folder = self.folder / name
        if not folder.exists():
            folder.mkdir()
            write_adapter(folder / "adapter_model.safetensors", shapes(rank=8))
            (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, "revision": name}))
            (folder / "README.md").write_text(f"# {name}")
            (folder / "model.gguf").write_bytes(b"GGUF" + name.encode())
            (folder / "Modelfile").write_text(OllamaModel("{{ .Prompt }}", [], None, []).modelfile("model.gguf"))
        return folder


@contextmanager
def serving_at(row: Row, folder: Path) -> Generator[Serving]:
    """Serve a platform's simulator for as long as a block lasts."""
    hosting, exchanges = Hosting(boot_seconds=BOOT_SECONDS), list[Exchange]()
    breaking = Breaking(recorded(row.simulator(hosting), exchanges))
    with stage().shows(row.name, breaking) as address:
        host = row.host(row.account(address, folder=folder / "hosted"), IMPATIENT, 5.0)
        yield Serving(row, hosting, address, breaking, folder, host, exchanges)
    hosting.close()


async def eventually(look: Callable[[], Awaitable[Found | None]]) -> Found:
    """Return what is found, once it is."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (found := await look()) is None:
        assert time.monotonic() < deadline, "it never came to that"
        await anyio.sleep(0.02)
    return found
