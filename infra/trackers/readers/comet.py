"""Comet, read over its REST API."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from infra.trackers.readers.base import Found, Points, answer_of, foreign, no_run, number_of, of_millis, parsed
from infra.vendor_http import Call
from peft_studio.jobs import JobStatus

_MOST_PROJECTS = 20
_TAG = "peft-studio-run-"


class CometExperiments:
    """The experiments of the account's default workspace; one's place is its key."""

    def __init__(self, url: str, values: Mapping[str, str]):
        self._url = url
        self._headers = {"Authorization": values["api_key"]}

    async def runs(self, project: str | None, limit: int, before: datetime | None) -> list[Found]:
        """Return the newest experiments; without a project, of the first twenty."""
        workspace = (await self._ask("account-details")).get("defaultWorkspaceName") or ""
        projects = [project] if project else await self._projects(workspace)
        pages = await asyncio.gather(*(self._listed(workspace, one) for one in projects))
        every = [one for page in pages for one in page]
        some = [one for one in every if before is None or of_millis(one.get("startTimeMillis")) <= before]
        some.sort(key=lambda one: int(one.get("startTimeMillis") or 0), reverse=True)
        return list(await asyncio.gather(*(self._found(one) for one in some[:limit])))

    async def run(self, place: str) -> Found:
        """Return one experiment."""
        found = await self._ask("experiment/metadata", experimentKey=place)
        if not found.get("experimentKey"):
            raise no_run("comet", place)
        return await self._found(found)

    async def points(self, place: str, names: Sequence[str]) -> dict[str, Points]:
        """Return metrics by step."""
        points: dict[str, Points] = {}
        for name in names:
            body = await self._ask("experiment/metrics/get-metric", experimentKey=place, metricName=name)
            some = {int(one.get("step") or 0): number_of(one.get("metricValue")) for one in body.get("metrics") or []}
            points[name] = {step: value for step, value in some.items() if value is not None}
        return points

    async def _projects(self, workspace: str) -> list[str]:
        some = (await self._ask("projects", workspaceName=workspace)).get("projects") or []
        return [one["projectName"] for one in some[:_MOST_PROJECTS]]

    async def _listed(self, workspace: str, project: str) -> list[dict[str, Any]]:
        place = {"workspaceName": workspace, "projectName": project}
        return (await self._ask("experiments", **place, archived="false")).get("experiments") or []

    async def _found(self, one: Mapping[str, Any]) -> Found:
        key, begun, ended = str(one["experimentKey"]), one.get("startTimeMillis"), one.get("endTimeMillis")
        summary = (await self._ask("experiment/metrics/summary", experimentKey=key)).get("values") or []
        parameters = (await self._ask("experiment/parameters", experimentKey=key)).get("values") or []
        tags = [str(tag) for tag in one.get("tags") or []]
        workspace, project = str(one.get("workspaceName")), str(one.get("projectName"))
        shown = foreign(
            "comet",
            key,
            project=project,
            name=one.get("experimentName") or key,
            status=_status(one, tags),
            metrics={each["name"]: each.get("valueCurrent") for each in summary},
            config={each["name"]: parsed(str(each.get("valueCurrent"))) for each in parameters},
            created_at=of_millis(begun),
            seconds=(int(ended) - int(begun)) / 1000 if begun and ended else None,
            url=f"{self._url.partition('/api/rest')[0]}/{workspace}/{project}/{key}",
        )
        return Found(shown, own=next((tag.removeprefix(_TAG) for tag in tags if tag.startswith(_TAG)), None))

    async def _ask(self, path: str, **query: str) -> dict[str, Any]:
        call = Call(f"{self._url}/{path}", params=query, headers=self._headers)
        answer = await answer_of("comet", call, missing=True)
        return answer.body if answer.status == 200 and isinstance(answer.body, dict) else {}


def _status(one: Mapping[str, Any], tags: Sequence[str]) -> JobStatus:
    """Comet knows running and crashed; senders of a studio say the rest by a tag."""
    if one.get("running"):
        return JobStatus.RUNNING
    said = next((status for status in (JobStatus.FAILED, JobStatus.CANCELLED) if status.value in tags), None)
    return said or (JobStatus.FAILED if one.get("hasCrashed") else JobStatus.COMPLETED)
