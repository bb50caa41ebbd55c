"""MLflow, read over its REST API."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from infra.platforms.checks import basic
from infra.trackers.readers.base import Found, Points, answer_of, foreign, millis, no_run, number_of, of_millis, parsed
from infra.vendor_http import Call
from peft_studio.jobs import JobStatus

_MOST_EXPERIMENTS = 100
_STATES = {
    "RUNNING": JobStatus.RUNNING,
    "FINISHED": JobStatus.COMPLETED,
    "FAILED": JobStatus.FAILED,
    "KILLED": JobStatus.CANCELLED,
}


class MlflowRuns:
    """The runs of a tracking server; a run's place is its id."""

    def __init__(self, url: str, values: Mapping[str, str]):
        self._site = url
        self._url = f"{url}/api/2.0/mlflow"
        self._headers: dict[str, str] = {}
        if "token" in values:
            self._headers = {"Authorization": f"Bearer {values['token']}"}
        elif "password" in values:
            self._headers = basic(values.get("username", ""), values["password"])

    async def runs(self, project: str | None, limit: int, before: datetime | None) -> list[Found]:
        """Return the newest runs; without a project, of the hundred that were changed last."""
        names = await self._experiments(project)
        if not names:
            return []
        said: dict[str, Any] = {
            "experiment_ids": list(names),
            "max_results": limit,
            "order_by": ["attributes.start_time DESC"],
        }
        if before:
            said["filter"] = f"attributes.start_time <= {millis(before)}"
        body = await self._ask("POST", "runs/search", body=said)
        return [self._found(run, names.get(run["info"]["experiment_id"], "")) for run in body.get("runs") or []]

    async def run(self, place: str) -> Found:
        """Return one run."""
        run = (await self._ask("GET", "runs/get", {"run_id": place}, missing=True)).get("run")
        if run is None:
            raise no_run("mlflow", place)
        of = await self._ask("GET", "experiments/get", {"experiment_id": run["info"]["experiment_id"]})
        return self._found(run, (of.get("experiment") or {}).get("name", ""))

    async def points(self, place: str, names: Sequence[str]) -> dict[str, Points]:
        """Return metrics by step."""
        points: dict[str, Points] = {}
        for name in names:
            query = {"run_id": place, "metric_key": name}
            body = await self._ask("GET", "metrics/get-history", query, missing=True)
            some = {int(one.get("step") or 0): number_of(one.get("value")) for one in body.get("metrics") or []}
            points[name] = {step: value for step, value in some.items() if value is not None}
        return points

    async def _experiments(self, project: str | None) -> dict[str, str]:
        if project:
            query = {"experiment_name": project}
            one = (await self._ask("GET", "experiments/get-by-name", query, missing=True)).get("experiment")
            return {one["experiment_id"]: one["name"]} if one else {}
        said = {"max_results": _MOST_EXPERIMENTS, "order_by": ["last_update_time DESC"]}
        some = (await self._ask("POST", "experiments/search", body=said)).get("experiments") or []
        return {one["experiment_id"]: one["name"] for one in some}

    async def _ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, *, body: Any = None, missing: bool = False
    ) -> dict[str, Any]:
        call = Call(f"{self._url}/{path}", method, params=query or {}, headers=self._headers, body=body)
        answer = await answer_of("mlflow", call, missing=missing)
        return answer.body if isinstance(answer.body, dict) else {}

    def _found(self, run: Mapping[str, Any], project: str) -> Found:
        info, data = run["info"], run.get("data") or {}
        tags = {tag["key"]: tag.get("value", "") for tag in data.get("tags") or []}
        begun, ended = int(info.get("start_time") or 0), int(info.get("end_time") or 0)
        name, experiment = info["run_id"], info["experiment_id"]
        shown = foreign(
            "mlflow",
            name,
            project=project,
            name=info.get("run_name") or name,
            status=_STATES.get(str(info.get("status")), JobStatus.PENDING),
            metrics={one["key"]: one.get("value") for one in data.get("metrics") or []},
            config={one["key"]: parsed(one.get("value", "")) for one in data.get("params") or []},
            created_at=of_millis(begun),
            seconds=(ended - begun) / 1000 if ended else None,
            url=f"{self._site}/#/experiments/{experiment}/runs/{name}",
        )
        return Found(shown, own=tags.get("peft_studio.run_id"))
