"""Weights & Biases, read over its GraphQL."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from infra.platforms.checks import basic
from infra.trackers.readers.base import Found, Points, answer_of, foreign, no_run, number_of
from infra.vendor_http import Call
from peft_studio.errors import ResourceUnavailable
from peft_studio.jobs import JobStatus

_NODE = "name displayName state tags createdAt heartbeatAt config summaryMetrics"
_RUNS = f"""query Runs($entity: String, $project: String!, $perPage: Int, $order: String, $filters: JSONString) {{
  project(name: $project, entityName: $entity) {{
    runs(first: $perPage, order: $order, filters: $filters) {{ edges {{ node {{ {_NODE} }} }} }} }} }}"""
_RUN = f"""query Run($entity: String, $project: String!, $run: String!, $specs: [JSONString!]!) {{
  project(name: $project, entityName: $entity) {{
    run(name: $run) {{ {_NODE} sampledHistory(specs: $specs) }} }} }}"""
_PROJECTS = """query Projects($entity: String) {
  models(entityName: $entity, first: 20) { edges { node { name } } } }"""
_VIEWER = "query Viewer { viewer { username entity } }"
_SAMPLES = 500
_STATES = {
    "running": JobStatus.RUNNING,
    "finished": JobStatus.COMPLETED,
    "failed": JobStatus.FAILED,
    "crashed": JobStatus.FAILED,
    "killed": JobStatus.CANCELLED,
}


class WandbRuns:
    """The runs of the account's default entity; a run's place is ``entity:project:run``."""

    def __init__(self, url: str, values: Mapping[str, str]):
        self._url = url
        self._headers = basic("api", values["api_key"])

    async def runs(self, project: str | None, limit: int, before: datetime | None) -> list[Found]:
        """Return the newest runs; without a project, of the twenty projects that come first."""
        entity = (await self._ask(_VIEWER)).get("viewer", {}).get("entity")
        projects = [project] if project else await self._projects(entity)
        pages = await asyncio.gather(*(self._page(entity, one, limit, before) for one in projects))
        found = [run for page in pages for run in page]
        return sorted(found, key=lambda run: run.experiment.created_at, reverse=True)[:limit]

    async def run(self, place: str) -> Found:
        """Return one run."""
        entity, project, _ = _parts(place)
        return _found(entity, project, await self._one(place, []), self._url)

    async def points(self, place: str, names: Sequence[str]) -> dict[str, Points]:
        """Return metrics by step, sampled by the server where there are very many."""
        specs = [json.dumps({"keys": ["_step", name], "samples": _SAMPLES}) for name in names]
        sampled = (await self._one(place, specs)).get("sampledHistory") or []
        rows = dict(zip(names, sampled, strict=False))
        return {name: _by_step(some, name) for name, some in rows.items()}

    async def _projects(self, entity: str | None) -> list[str]:
        edges = (await self._ask(_PROJECTS, entity=entity)).get("models", {}).get("edges") or []
        return [edge["node"]["name"] for edge in edges]

    async def _page(self, entity: str | None, project: str, limit: int, before: datetime | None) -> list[Found]:
        filters = {"createdAt": {"$lte": before.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")}} if before else {}
        said = {"perPage": limit, "order": "-created_at", "filters": json.dumps(filters)}
        data = (await self._ask(_RUNS, entity=entity, project=project, **said)).get("project") or {}
        edges = (data.get("runs") or {}).get("edges") or []
        return [_found(entity, project, edge["node"], self._url) for edge in edges]

    async def _one(self, place: str, specs: Sequence[str]) -> dict[str, Any]:
        entity, project, run = _parts(place)
        data = await self._ask(_RUN, entity=entity, project=project, run=run, specs=list(specs))
        if node := (data.get("project") or {}).get("run"):
            return node
        raise no_run("wandb", place)

    async def _ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = {"query": query, "variables": variables}
        answer = await answer_of("wandb", Call(f"{self._url}/graphql", "POST", headers=self._headers, body=body))
        data = answer.body.get("data") if isinstance(answer.body, dict) else None
        if not isinstance(data, dict):
            raise ResourceUnavailable("wandb sent an answer that is not understood.", platform="wandb")
        return data


def _by_step(rows: Sequence[Mapping[str, Any]], name: str) -> Points:
    return {int(row["_step"]): value for row in rows if (value := number_of(row.get(name))) is not None}


def _parts(place: str) -> tuple[str, str, str]:
    entity, _, rest = place.partition(":")
    project, _, run = rest.partition(":")
    if not (entity and project and run):
        raise no_run("wandb", place)
    return entity, project, run


def _found(entity: str | None, project: str, node: Mapping[str, Any], url: str) -> Found:
    config = {key: value.get("value") for key, value in _object(node["config"]).items() if isinstance(value, dict)}
    begun, beat = _time(node["createdAt"]), _time(node.get("heartbeatAt"))
    config.pop("_wandb", None)
    site = url.replace("//api.", "//", 1)
    return Found(
        foreign(
            "wandb",
            f"{entity}:{project}:{node['name']}",
            project=project,
            name=node.get("displayName") or node["name"],
            status=_STATES.get(str(node.get("state")), JobStatus.PENDING),
            metrics={key: value for key, value in _object(node["summaryMetrics"]).items() if not key.startswith("_")},
            config=config,
            created_at=begun or datetime.now(UTC),
            seconds=(beat - begun).total_seconds() if beat and begun else None,
            url=f"{site}/{entity}/{project}/runs/{node['name']}",
        ),
        own=node["name"] if "peft-studio" in (node.get("tags") or []) else None,
    )


def _object(text: str | None) -> dict[str, Any]:
    value = json.loads(text or "{}")
    return value if isinstance(value, dict) else {}


def _time(text: str | None) -> datetime | None:
    """Read a time; one without a zone is UTC."""
    if not text:
        return None
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
