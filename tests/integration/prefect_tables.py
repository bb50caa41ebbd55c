"""A PostgreSQL with Prefect's own tables in it and no server beside it, for whoever tests how they are read."""

import asyncio
import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from subprocess import DEVNULL, Popen
from time import monotonic, sleep
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from prefect.client.schemas.objects import StateType
from prefect.server.database.orm_models import Base
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.schema import CreateTable

from infra.database_url import for_asyncpg
from infra.embedded.database import EmbeddedPostgres
from infra.settings import Settings

SECONDS = 20.0
TABLES = ("flow", "flow_run", "flow_run_state", "artifact", "artifact_collection", "variable")


class Tables:
    """The tables, to be written into the way Prefect's server does."""

    def __init__(self, url: str):
        self.url = SecretStr(url)

    def artifact(self, key: str, kind: str, data: Any, *, flow_run_id: UUID | None = None, created: datetime) -> None:
        """Write a version of an artifact, which from now on is the newest of its key."""
        version, values = uuid4(), (key, kind, json.dumps(data), flow_run_id, created)
        columns = "key, type, data, flow_run_id, created, updated"
        self.run(f"INSERT INTO artifact (id, {columns}) VALUES ($6, $1, $2, $3, $4, $5, $5)", *values, version)
        self.run(
            f"""INSERT INTO artifact_collection (id, latest_id, {columns}) VALUES ($6, $6, $1, $2, $3, $4, $5, $5)
                ON CONFLICT (key) DO UPDATE SET latest_id = excluded.latest_id, data = excluded.data""",
            *values,
            version,
        )

    def variable(self, name: str, value: Any, *tags: str) -> None:
        """Write a variable."""
        columns = "id, name, value, tags, created, updated"
        values = uuid4(), name, json.dumps(value), json.dumps(tags)
        self.run(f"INSERT INTO variable ({columns}) VALUES ($1, $2, $3, $4, now(), now())", *values)

    def flow_run(
        self, flow: str, state: StateType, tags: Sequence[str] = (), idempotency_key: str | None = None
    ) -> UUID:
        """Write a run of a flow, and the flow where there is none."""
        self.run(
            "INSERT INTO flow (id, name, tags, labels, created, updated) VALUES ($1, $2, '[]', '{}', now(), now()) "
            "ON CONFLICT DO NOTHING",
            *(uuid4(), flow),
        )
        run_id = uuid4()
        self.run(
            """INSERT INTO flow_run (id, flow_id, name, state_type, tags, parameters, context, empirical_policy, labels,
                auto_scheduled, idempotency_key, run_count, total_run_time, created, updated)
            VALUES ($1, (SELECT id FROM flow WHERE name = $2), 'run', $3::text::state_type, $4, '{}', '{}', '{}', '{}',
                false, $5, 0, '0', now(), now())""",
            *(run_id, flow, state.value, json.dumps(tags), idempotency_key),
        )
        return run_id

    def run(self, statement: str, *values: Any) -> None:
        """Run one statement."""

        async def run() -> None:
            connection = await asyncpg.connect(for_asyncpg(self.url.get_secret_value()))
            try:
                await connection.execute(statement, *values)
            finally:
                await connection.close()

        asyncio.run(run())


@contextmanager
def prefect_tables(folder: Path) -> Generator[Tables]:
    """Start the embedded PostgreSQL in a folder and create the tables that are read."""
    postgres = EmbeddedPostgres(Settings(data_dir=folder / "data"), folder)
    program = postgres.program()
    program.prepare()
    process = Popen(
        program.command,
        env=program.environment,
        cwd=program.folder,
        user=program.user,
        group=program.user,
        extra_groups=None if program.user is None else [],
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    try:
        deadline = monotonic() + SECONDS
        while not program.is_ready():
            assert monotonic() < deadline and process.poll() is None
            sleep(0.02)
        asyncio.run(_create(postgres.url))
        yield Tables(postgres.url)
    finally:
        process.send_signal(program.stop_signal)
        process.wait(SECONDS)


async def _create(url: str) -> None:
    engine = create_async_engine(url)
    states = ", ".join(f"'{state.value}'" for state in StateType)
    async with engine.begin() as connection:
        await connection.execute(text(f"CREATE TYPE state_type AS ENUM ({states})"))
        for name in TABLES:  # without the indexes, some of which need an extension
            await connection.execute(CreateTable(Base.metadata.tables[name], include_foreign_key_constraints=[]))
    await engine.dispose()
