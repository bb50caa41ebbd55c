"""A trackio server, read over HTTP."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from infra.trackers.readers.base import Found, Points, answer_of, foreign, no_run, number_of
from infra.vendor_http import Call
from peft_studio.jobs import JobStatus

_MOST_PROJECTS = 20
_FINAL = "final/"


class TrackioRuns:
    """The runs of a server; a run's place is ``project:run id``."""

    def __init__(self, url: str, values: Mapping[str, str]):
        self._url = url

    async def runs(self, project: str | None, limit: int, before: datetime | None) -> list[Found]:
        """Return the newest runs; without a project, of the first twenty."""
        known = await self._ask("get_all_projects") or []
        projects = [one for one in known if project in (None, one)][:_MOST_PROJECTS]
        pages = await asyncio.gather(*(self._ask("get_runs_for_project", project=one) for one in projects))
        every: list[tuple[str, dict[str, Any]]] = [
            (one, run) for one, page in zip(projects, pages, strict=True) for run in page or []
        ]
        some = [pair for pair in every if before is None or _time(pair[1]) <= before]
        some.sort(key=lambda pair: _time(pair[1]), reverse=True)
        return list(await asyncio.gather(*(self._found(*pair) for pair in some[:limit])))

    async def run(self, place: str) -> Found:
        """Return one run."""
        project, run = await self._record(place)
        return await self._found(project, run)

    async def points(self, place: str, names: Sequence[str]) -> dict[str, Points]:
        """Return metrics by step."""
        project, run = await self._record(place)
        points: dict[str, Points] = {}
        for name in names:
            rows = await self._values(project, run, name)
            some = {int(row.get("step") or 0): number_of(row.get("value")) for row in rows}
            points[name] = {step: value for step, value in some.items() if value is not None}
        return points

    async def _record(self, place: str) -> tuple[str, dict[str, Any]]:
        project, _, name = place.rpartition(":")
        records = await self._ask("get_runs_for_project", project=project) if project else []
        for run in records or []:
            if run.get("id") == name:
                return project, run
        raise no_run("trackio", place)

    async def _found(self, project: str, run: Mapping[str, Any]) -> Found:
        of = {"project": project, "run": run["name"], "run_id": run.get("id")}
        summary = await self._ask("get_run_summary", **of) or {}
        names = [name for name in summary.get("metrics") or [] if name != "status"][:50]
        last = await asyncio.gather(*(self._values(project, run, name) for name in names))
        ends = {name: rows[-1].get("value") for name, rows in zip(names, last, strict=True) if rows}
        metrics = {name.removeprefix(_FINAL): value for name, value in ends.items()}
        said = await self._values(project, run, "status") if "status" in (summary.get("metrics") or []) else []
        config = {key: value for key, value in (summary.get("config") or {}).items() if not key.startswith("_")}
        status = said[-1].get("value") if said else None
        shown = foreign(
            "trackio",
            f"{project}:{run.get('id')}",
            project=project,
            name=str(config.get("name") or run["name"]),
            # The server knows no states; senders of a studio say theirs in the end.
            status=JobStatus(status) if status in list(JobStatus) else JobStatus.RUNNING,
            metrics=metrics,
            config=config,
            created_at=_time(run),
            url=f"{self._url}/?project={project}",
        )
        return Found(shown, own=run["name"])

    async def _values(self, project: str, run: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
        of = {"project": project, "run": run["name"], "run_id": run.get("id")}
        return await self._ask("get_metric_values", **of, metric_name=name) or []

    async def _ask(self, name: str, **said: Any) -> Any:
        answer = await answer_of("trackio", Call(f"{self._url}/api/{name}", "POST", body=said))
        return answer.body.get("data") if isinstance(answer.body, dict) else None


def _time(run: Mapping[str, Any]) -> datetime:
    text = str(run.get("created_at") or "1970-01-01T00:00:00")
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
