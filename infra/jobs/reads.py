"""Jobs as they stand in Prefect's database: one, a page of them, how many there are."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

import asyncpg
from prefect.client.schemas.objects import FlowRun, StateType
from pydantic_core import from_json, to_json

from infra.prefect_database import PrefectDatabase
from peft_studio.config import TrainingConfig
from peft_studio.errors import InvalidConfig
from peft_studio.experiments import DEFAULT_PROJECT

RESULT = "peft-studio.result"  # type of the artifact that holds a JobResult

# Runs that a schedule has planned ahead are jobs once their time has come.
_AHEAD = "r.auto_scheduled AND r.state_type = 'SCHEDULED' AND r.next_scheduled_start_time > now()"
_COLUMNS = f"""
    r.id, r.name, r.parameters::text AS parameters, r.tags::text AS tags, r.state_type::text AS state_type,
    r.created, r.expected_start_time, r.start_time, r.end_time, r.run_count,
    (SELECT s.message FROM flow_run_state s WHERE s.id = r.state_id) AS state_message,
    (SELECT a.data #>> '{{}}' FROM artifact a WHERE a.flow_run_id = r.id AND a.type = '{RESULT}'
     ORDER BY a.created DESC LIMIT 1) AS result
"""


# A run has no such tag where a schedule has made it and it did not begin yet, or an older version of ours did: then its
# parameters say.
_TAGGED = """(r.tags @> ${tags}::text::jsonb OR (NOT r.tags @? '$[*] ? (@ starts with "{kind}:")'
    AND COALESCE(NULLIF(r.parameters #>> '{{config,{field}}}', ''), '{default}') = ${value}))"""
_SAID = {
    "provider": {"field": "provider", "default": TrainingConfig.model_fields["provider"].default},
    "project": {"field": "project_name", "default": DEFAULT_PROJECT},
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """A flow run, as far as a job is made of it; ``result`` is the JSON of a ``JobResult``, once there is one."""

    id: UUID
    name: str
    parameters: dict[str, Any]
    tags: Sequence[str]
    state_type: StateType
    created: datetime
    run_count: int = 0
    expected_start_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    state_message: str | None = None
    result: str | None = None

    @classmethod
    def of(cls, flow_run: FlowRun) -> Self:
        """Take over what Prefect's client returned for a run that has no result yet."""
        return cls(
            id=flow_run.id,
            name=flow_run.name,
            parameters=flow_run.parameters,
            tags=flow_run.tags,
            state_type=flow_run.state_type or StateType.SCHEDULED,
            created=flow_run.created or datetime.now().astimezone(),
            run_count=flow_run.run_count,
            expected_start_time=flow_run.expected_start_time,
            start_time=flow_run.start_time,
            end_time=flow_run.end_time,
            state_message=flow_run.state.message if flow_run.state else None,
        )


@dataclass(frozen=True)
class RunFilter:
    """Which runs are meant: in one of these states (of any, where None), of this provider and project, with a tag."""

    states: Sequence[StateType] | None = None
    provider: str | None = None
    project: str | None = None
    tag: str | None = None


class JobReads:
    """The runs of one flow."""

    def __init__(self, database: PrefectDatabase, flow: str):
        self._database = database
        self._flow = flow

    async def get(self, run_id: UUID) -> Run | None:
        """Return one run, or None where there is none."""
        query = f"SELECT {_COLUMNS} FROM flow_run r JOIN flow f ON f.id = r.flow_id WHERE r.id = $1 AND f.name = $2"
        rows = await self._database.fetch(query, run_id, self._flow)
        return _run(rows[0]) if rows else None

    async def page(self, wanted: RunFilter, *, limit: int, after: UUID | None = None) -> list[Run]:
        """Return runs, newest first, those behind the run ``after``; raises ``InvalidConfig`` where that is none."""
        where, values = _conditions(wanted, self._flow)
        if after is not None:
            if (place := await self._expected(after)) is None:
                raise InvalidConfig("This is not a cursor of this list.", field="cursor", issue="Send one you received")
            values += [place, after]
            where += f" AND (r.expected_start_time, r.id) < (${len(values) - 1}, ${len(values)})"
        values.append(limit)
        # The rows are found first, from the index alone; what is costly to look up is looked up for these.
        rows = await self._database.fetch(
            f"""WITH found AS MATERIALIZED (
                    SELECT r.id, r.expected_start_time FROM flow_run r WHERE {where}
                    ORDER BY r.expected_start_time DESC, r.id DESC LIMIT ${len(values)})
                SELECT {_COLUMNS} FROM found JOIN flow_run r ON r.id = found.id
                ORDER BY found.expected_start_time DESC, found.id DESC""",
            *values,
        )
        return [_run(row) for row in rows]

    async def count(self, wanted: RunFilter) -> int:
        """Count the runs."""
        where, values = _conditions(wanted, self._flow, planned_ahead=True)
        # Counted apart, each by an index of its own: together they would need a look at every row.
        ahead = f"SELECT count(*) FROM flow_run r WHERE {where} AND {_AHEAD}"
        query = f"SELECT (SELECT count(*) FROM flow_run r WHERE {where}) - ({ahead}) AS runs"
        rows = await self._database.fetch(query, *values)
        return rows[0]["runs"]

    async def _expected(self, run_id: UUID) -> datetime | None:
        rows = await self._database.fetch("SELECT expected_start_time FROM flow_run WHERE id = $1", run_id)
        return rows[0]["expected_start_time"] if rows else None


def _conditions(wanted: RunFilter, flow: str, *, planned_ahead: bool = False) -> tuple[str, list[Any]]:
    """Return a WHERE clause on ``flow_run r``, and its values."""
    values: list[Any] = [flow]
    parts = ["r.flow_id = (SELECT id FROM flow WHERE name = $1)"]
    if wanted.states is not None:
        # Our own words, written out: only of constants does PostgreSQL know how many rows have them.
        parts.append(f"r.state_type IN ({', '.join(repr(state.value) for state in wanted.states)})")
    for kind, value in (("provider", wanted.provider), ("project", wanted.project)):
        if value is None:
            continue
        if "\0" in value:
            parts.append("FALSE")  # PostgreSQL knows no such character, so nothing is called so
            continue
        values += [_json([f"{kind}:{value}"]), value]
        parts.append(_TAGGED.format(kind=kind, tags=len(values) - 1, value=len(values), **_SAID[kind]))
    if wanted.tag is not None:
        values.append(_json([wanted.tag]))
        parts.append(f"r.tags @> ${len(values)}::text::jsonb")
    if not planned_ahead:
        parts.append(f"NOT ({_AHEAD})")
    return " AND ".join(parts), values


def _run(row: asyncpg.Record) -> Run:
    fields: dict[str, Any] = dict(row)
    fields |= {name: from_json(fields[name]) for name in ("parameters", "tags")}
    fields["state_type"] = StateType(fields["state_type"] or StateType.SCHEDULED)
    return Run(**fields)


def _json(value: Any) -> str:
    return to_json(value).decode()
