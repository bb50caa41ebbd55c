"""
Comet, over its documented REST API: the library's own wire is not documented, and parts of it must not be copied.

Requests are sent one after the other, so that what has arrived is always a beginning of what was sent; opened again,
Comet is asked for the last step. https://www.comet.com/docs/v2/api-and-sdk/rest-api/write-endpoints/
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import httpx

from peft_studio.jobs import JobStatus
from peft_studio.trackers.answers import SECONDS, ask
from peft_studio.trackers.contract import Destination, Ending, Opened, Row, TrackerUnavailable

_TAG = "peft-studio-run-"  # by which a run is found again


class Comet:
    """One experiment."""

    _client: httpx.Client
    _key: str
    _last: dict[str, int]  # of each metric, where Comet had some before

    def open(self, destination: Destination) -> Opened:
        """Begin the experiment, or go on with it; it is found again by a tag, since Comet makes its key."""
        key = destination.secret("api_key") or ""
        address = f"{destination.url}/"
        self._client = httpx.Client(base_url=address, headers={"Authorization": key}, timeout=SECONDS)
        workspace = destination.entity or self._get("account-details").get("defaultWorkspaceName")
        tag = _TAG + destination.run_id
        place = {"workspaceName": workspace, "projectName": destination.project}
        found = next((one for one in self._experiments(place) if tag in (one.get("tags") or [])), None)
        if found is None:
            found = self._post("create", {**place, "experimentName": destination.name})
            self._key = str(found["experimentKey"])
            self._post("tags", {"experimentKey": self._key, "addedTags": [tag, *destination.tags]})
        self._key = str(found["experimentKey"])
        for name, value in destination.config.items():
            parameter = {"experimentKey": self._key, "parameterName": name, "parameterValue": str(value)}
            self._post("parameter", parameter)
        self._last = self._last_steps()
        steps = self._last.values()
        # The rows from here on are looked through again: of the last one, some metrics may not have arrived.
        return Opened(last_step=max(steps) - 1 if steps else None, url=self._link(found, place))

    def log(self, rows: Sequence[Row]) -> None:
        """Send rows, a request for each number."""
        for row in rows:
            for name, value in row.metrics.items():
                if row.step > self._last.get(name, -1):
                    self._metric(name, value, row.step, row.time)

    def finish(self, ending: Ending) -> None:
        """Send the final metrics and the state, and mark the experiment as ended."""
        for name, value in ending.metrics.items():
            if f"final.{name}" not in self._last:
                self._metric(f"final.{name}", value, ending.last_step or 0, ending.time)
        self._post("log-other", {"experimentKey": self._key, "key": "job_status", "value": ending.status.value})
        if ending.status is not JobStatus.COMPLETED:
            self._post("tags", {"experimentKey": self._key, "addedTags": [ending.status.value]})
        ask(self._client, "GET", "write/experiment/stop", params={"experimentKey": self._key})

    def _metric(self, name: str, value: float, step: int, time: float) -> None:
        number = {"metricName": name, "metricValue": value, "step": step, "timestamp": int(time * 1000)}
        self._post("metric", {"experimentKey": self._key, **number})

    def _experiments(self, place: Mapping[str, Any]) -> list[dict[str, Any]]:
        try:
            return self._get("experiments", **place, archived="false").get("experiments") or []
        except TrackerUnavailable as error:
            if "404" in str(error) or "400" in str(error):
                return []  # there is no such project yet
            raise

    def _last_steps(self) -> dict[str, int]:
        found = self._get("experiment/metrics/summary", experimentKey=self._key).get("values") or []
        return {str(one["name"]): int(one.get("stepCurrent") or 0) for one in found}

    def _link(self, found: Mapping[str, Any], place: Mapping[str, Any]) -> str | None:
        if link := found.get("link"):
            return str(link)
        site = str(self._client.base_url).partition("/api/rest")[0]
        return f"{site}/{place['workspaceName']}/{place['projectName']}/{self._key}"

    def _get(self, path: str, **query: str) -> dict[str, Any]:
        answer = ask(self._client, "GET", path, params=query)
        return cast(dict[str, Any], answer) if isinstance(answer, dict) else {}

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = ask(self._client, "POST", f"write/experiment/{path}", json=body)
        return cast(dict[str, Any], answer) if isinstance(answer, dict) else {}
