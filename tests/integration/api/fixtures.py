"""The API with a studio in memory behind it, for whoever tests what goes over the wire."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from api.app import create_app
from api.dependencies import Coordination, RunsOfAdapters
from infra.adapters.runs import RunsInMemory
from infra.credentials import CredentialsInMemory
from infra.deploying.runs import DeployRunsInMemory
from infra.exports.runs import ExportRunsInMemory
from infra.serving.records import DeploymentsInMemory
from infra.settings import Settings
from tests.integration.api.coordination_in_memory import coordination_in_memory
from tests.integration.api.studio_in_memory import BudgetsInMemory, JobsInMemory, KeysInMemory, MachinesInMemory

Client = TestClient[Litestar]


class Connect(Protocol):
    """Open a client with the key ``writes``, another one or none; other doubles and settings as keywords."""

    def __call__(
        self,
        key: str | None = "writes",
        *,
        jobs: JobsInMemory | None = None,
        keys: KeysInMemory | None = None,
        machines: MachinesInMemory | None = None,
        **settings: Any,
    ) -> Client: ...


@pytest.fixture
def jobs() -> JobsInMemory:
    return JobsInMemory()


@pytest.fixture
def deployments() -> DeploymentsInMemory:
    return DeploymentsInMemory()


@pytest.fixture
def credentials() -> CredentialsInMemory:
    return CredentialsInMemory()


@pytest.fixture
def coordination() -> Coordination:
    return coordination_in_memory()


@pytest.fixture
def export_runs() -> ExportRunsInMemory:
    return ExportRunsInMemory()


@pytest.fixture
def deploy_runs() -> DeployRunsInMemory:
    return DeployRunsInMemory()


@pytest.fixture
def evaluation_runs() -> RunsInMemory:
    return RunsInMemory()


@pytest.fixture
def connect(
    jobs: JobsInMemory,
    deployments: DeploymentsInMemory,
    credentials: CredentialsInMemory,
    coordination: Coordination,
    export_runs: ExportRunsInMemory,
    deploy_runs: DeployRunsInMemory,
    evaluation_runs: RunsInMemory,
    tmp_path: Path,
) -> Iterator[Connect]:
    with ExitStack() as stack:

        def opened(
            key: str | None = "writes",
            *,
            jobs: JobsInMemory | None = jobs,
            keys: KeysInMemory | None = None,
            machines: MachinesInMemory | None = None,
            **settings: Any,
        ) -> Client:
            given = Settings.model_validate({"requests_per_minute": 1000, "data_dir": tmp_path / "data", **settings})
            app = create_app(
                jobs,
                keys or KeysInMemory(),
                given,
                deployments,
                jobs,
                credentials,
                budgets=BudgetsInMemory(),
                machines=machines or MachinesInMemory(),
                coordination=coordination,
                runs=RunsOfAdapters(export_runs, deploy_runs, evaluation_runs, jobs or JobsInMemory()),
            )
            # Errors inside the API are answered like everywhere else, and not raised into the test.
            client = stack.enter_context(TestClient(app, raise_server_exceptions=False))
            if key:
                client.headers["Authorization"] = f"Bearer {key}"
            return client

        yield opened


@pytest.fixture
def client(connect: Connect) -> Client:
    return connect()
