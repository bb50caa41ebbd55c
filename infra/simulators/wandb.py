"""
Weights & Biases: the part of its GraphQL and of its file streams that the real library and a list of runs need.

As seen with wandb 0.31: the library's own queries are answered by the operation they name. Lines of history are put
where their offset says, so that a library that sends some twice, or leaves some out, is found out.
"""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from infra.simulators.accounts import DOORS
from infra.simulators.exchange import App, Asked, Reply, application
from infra.simulators.sources import Trouble

ENTITY = "alice"
KEY = "goodkeyofasimulatoroftheproperlength0001"  # the library takes none that is shorter
_HISTORY, _SUMMARY = "wandb-history.jsonl", "wandb-summary.json"
_STATES = {0: "finished", 255: "killed"}


@dataclass
class SimulatedRun:
    """One run, as the server keeps it."""

    entity: str
    project: str
    name: str
    display_name: str
    created_at: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"))
    config: str = "{}"
    summary: dict[str, Any] = field(default_factory=dict[str, Any])
    tags: list[str] = field(default_factory=list[str])
    state: str = "running"
    history: list[str] = field(default_factory=list[str])
    opened: int = 0

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The lines of history, parsed."""
        return [json.loads(line) for line in self.history]

    def node(self) -> dict[str, Any]:
        """The run in the words of the API."""
        return {
            "id": f"id-{self.name}",
            "name": self.name,
            "displayName": self.display_name,
            "state": self.state,
            "tags": self.tags,
            "createdAt": self.created_at,
            "heartbeatAt": self.created_at,
            "historyLineCount": len(self.history),
            "config": self.config,
            "summaryMetrics": json.dumps(self.summary),
            "project": {"id": "p", "name": self.project, "entity": {"id": "e", "name": self.entity}},
        }


@dataclass
class SimulatedWandb:
    """The server's runs, and what goes wrong with everything that is asked."""

    trouble: Trouble = field(default_factory=Trouble)
    runs: dict[str, SimulatedRun] = field(default_factory=dict[str, SimulatedRun])
    key: str = KEY

    def reply(self, asked: Asked) -> Reply:
        """Answer as the service does."""
        key = DOORS["wandb"].key_of(asked.headers)
        if asked.path == "/graphql":
            said = json.loads(_content(asked))
            query, variables = said.get("query", ""), said.get("variables") or {}
            if "viewer" in query.lower() and "upsertBucket" not in query:
                known = {"id": "u", "username": ENTITY, "entity": ENTITY, "flags": "{}", "teams": {"edges": []}}
                return Reply({"data": {"viewer": known if key == self.key else None}})
            if key != self.key:
                return Reply({"errors": [{"message": "permission denied"}]}, 401)
            return Reply({"data": self._data(query, variables, asked.origin)})
        if key != self.key and not asked.path.startswith("/stored/"):
            return Reply({"error": "unauthorized"}, 401)
        if asked.path.endswith("/file_stream"):
            return self._stream(asked)
        return Reply({})

    def _data(self, query: str, said: Mapping[str, Any], origin: str) -> dict[str, Any]:
        """Answer a query by the first field that it asks for."""
        if "upsertBucket" in query:
            return {"upsertBucket": self._upsert(said)}
        if "RunResumeStatus" in query:
            return {"model": self._resume(said)}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{origin}/stored/{name}"} for name in said["files"]]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        if "RunStoppedStatus" in query:
            return {"project": {"run": {"stopped": False}}}
        if "models(" in query:
            names = dict.fromkeys(run.project for run in self._of(said.get("entity")))
            return {"models": {"edges": [{"node": {"name": name}} for name in names]}}
        if "runs(" in query:
            return {"project": self._page(said)}
        if "run(" in query:
            return {"project": {"run": self._one(said)}}
        return {"serverInfo": {"features": [], "cliVersionInfo": {"max_cli_version": "0.99.0"}}}

    def _of(self, entity: str | None, project: str | None = None) -> list[SimulatedRun]:
        wanted = entity or ENTITY
        runs = [run for run in self.runs.values() if run.entity == wanted and project in (None, run.project)]
        return sorted(runs, key=lambda run: run.created_at, reverse=True)

    def _upsert(self, said: Mapping[str, Any]) -> dict[str, Any]:
        entity, project = said.get("entity") or ENTITY, said.get("project") or "uncategorized"
        name = said.get("name") or uuid4().hex[:8]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, SimulatedRun(entity, project, name, said.get("displayName") or name))
        run.config = said.get("config") or run.config
        run.tags = said.get("tags") or run.tags
        run.display_name = said.get("displayName") or run.display_name
        run.state = said.get("state") or "running"
        run.opened += 1
        return {"bucket": {**run.node(), "description": "", "sweepName": None}, "inserted": inserted}

    def _resume(self, said: Mapping[str, Any]) -> dict[str, Any]:
        entity, project = said.get("entity") or ENTITY, said.get("project") or "uncategorized"
        place = {"id": "p", "name": project, "entity": {"id": "e", "name": entity}}
        run = self.runs.get(said["name"])
        if run is None:
            return {**place, "bucket": None}
        counts = {"historyLineCount": len(run.history), "logLineCount": 0, "eventsLineCount": 0}
        tails = {"historyTail": json.dumps(run.history[-1:]), "eventsTail": "[]"}
        return {**place, "bucket": {**run.node(), **counts, **tails, "wandbConfig": None}}

    def _page(self, said: Mapping[str, Any]) -> dict[str, Any]:
        filters = json.loads(said.get("filters") or "{}")
        before = (filters.get("createdAt") or {}).get("$lte", "9")
        found = [run for run in self._of(said.get("entity"), said.get("project")) if run.created_at <= before]
        edges = [{"node": run.node(), "cursor": run.name} for run in found[: said.get("perPage") or 50]]
        return {"runs": {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}}

    def _one(self, said: Mapping[str, Any]) -> dict[str, Any] | None:
        run = self.runs.get(said["run"])
        if run is None or run.entity != (said.get("entity") or ENTITY) or run.project != said.get("project"):
            return None
        keys = [json.loads(spec)["keys"] for spec in said.get("specs") or []]
        sampled = [[row for row in run.rows if all(key in row for key in some)] for some in keys]
        return {**run.node(), "sampledHistory": sampled}

    def _stream(self, asked: Asked) -> Reply:
        name = asked.path.split("/")[4]
        run, said = self.runs.get(name), json.loads(_content(asked))
        if run is None:
            return Reply({"error": "run not found"}, 404)
        files = said.get("files") or {}
        if part := files.get(_HISTORY):
            run.history[part["offset"] : part["offset"] + len(part["content"])] = part["content"]
        if part := files.get(_SUMMARY):
            run.summary = json.loads(part["content"][-1])
        if said.get("complete"):
            run.state = _STATES.get(said.get("exitcode", 0), "failed")
        return Reply({})


def _content(asked: Asked) -> bytes:
    return gzip.decompress(asked.content) if asked.headers.get("content-encoding") == "gzip" else asked.content


def create_wandb(server: SimulatedWandb) -> App:
    """Make the application."""

    async def answer(asked: Asked) -> Reply:
        return await server.trouble.strikes(asked) or server.reply(asked)

    return application(answer)
