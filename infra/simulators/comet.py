"""Comet: the documented endpoints of its REST API that write an experiment and read it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import time
from typing import Any
from uuid import uuid4

from infra.simulators.accounts import DOORS, GOOD
from infra.simulators.exchange import App, Asked, Reply, application
from infra.simulators.sources import Trouble

WORKSPACE = "alice"


@dataclass
class SimulatedExperiment:
    """One experiment, as Comet keeps it."""

    key: str
    place: Mapping[str, str]
    name: str
    begun: int = field(default_factory=lambda: int(time() * 1000))
    tags: list[str] = field(default_factory=list[str])
    parameters: dict[str, str] = field(default_factory=dict[str, str])
    metrics: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    others: dict[str, str] = field(default_factory=dict[str, str])
    running: bool = True

    def shown(self) -> dict[str, Any]:
        """The experiment in a list."""
        state = {"running": self.running, "startTimeMillis": self.begun, "endTimeMillis": self.begun + 1000}
        return {"experimentKey": self.key, "experimentName": self.name, "tags": self.tags, **self.place, **state}

    def summary(self) -> list[dict[str, Any]]:
        """Each metric, with its last value and step."""
        last = {one["metricName"]: one for one in self.metrics}
        return [
            {
                "name": name,
                "valueCurrent": str(one["metricValue"]),
                "valueMin": str(min(float(m["metricValue"]) for m in self.metrics if m["metricName"] == name)),
                "stepCurrent": one.get("step"),
            }
            for name, one in last.items()
        ]


@dataclass
class SimulatedComet:
    """The workspace's experiments, and what goes wrong with everything that is asked."""

    trouble: Trouble = field(default_factory=Trouble)
    experiments: dict[str, SimulatedExperiment] = field(default_factory=dict[str, SimulatedExperiment])
    key: str = GOOD

    def reply(self, asked: Asked) -> Reply:
        """Answer as Comet does."""
        if asked.headers.get("authorization") != self.key:
            return DOORS["comet"].refused
        if asked.method == "GET" and asked.path != "/write/experiment/stop":
            return self._read(asked)
        body = {**asked.query, **(json.loads(asked.content) if asked.content else {})}
        action = asked.path.removeprefix("/write/experiment/")
        if action == "create":
            place = {"workspaceName": body["workspaceName"], "projectName": body["projectName"]}
            made = SimulatedExperiment(uuid4().hex, place, body["experimentName"])
            self.experiments[made.key] = made
            return Reply({**made.shown(), "link": f"https://www.comet.com/{WORKSPACE}/{made.key}"})
        experiment = self.experiments.get(str(body.get("experimentKey")))
        if experiment is None:
            return Reply({"msg": "no such experiment", "code": 400}, 400)
        return self._write(experiment, action, body)

    def _write(self, experiment: SimulatedExperiment, action: str, body: dict[str, Any]) -> Reply:
        match action:
            case "metric":
                experiment.metrics.append(body)
            case "parameter":
                experiment.parameters[body["parameterName"]] = body["parameterValue"]
            case "tags":
                experiment.tags += [tag for tag in body["addedTags"] if tag not in experiment.tags]
            case "log-other":
                experiment.others[body["key"]] = body["value"]
            case "stop":
                experiment.running = False
            case _:
                return Reply({"msg": "not found", "code": 404}, 404)
        return Reply({"msg": "ok"})

    def _read(self, asked: Asked) -> Reply:
        if asked.path == DOORS["comet"].path:
            return Reply(DOORS["comet"].good)
        if asked.path == "/projects":
            names = dict.fromkeys(one.place["projectName"] for one in self.experiments.values())
            return Reply({"projects": [{"projectName": name, "projectId": name} for name in names]})
        if asked.path == "/experiments":
            found = [one for one in self.experiments.values() if one.place["projectName"] == asked.query["projectName"]]
            return Reply({"experiments": [one.shown() for one in found]})
        experiment = self.experiments.get(asked.query.get("experimentKey", ""))
        if experiment is None:
            return Reply({"msg": "no such experiment", "code": 400}, 400)
        match asked.path:
            case "/experiment/metadata":
                return Reply(experiment.shown())
            case "/experiment/metrics/summary":
                return Reply({"values": experiment.summary()})
            case "/experiment/metrics/get-metric":
                wanted = asked.query["metricName"]
                return Reply({"metrics": [one for one in experiment.metrics if one["metricName"] == wanted]})
            case "/experiment/parameters":
                values = [{"name": name, "valueCurrent": value} for name, value in experiment.parameters.items()]
                return Reply({"values": values})
            case _:
                return Reply({"msg": "not found", "code": 404}, 404)


def create_comet(server: SimulatedComet) -> App:
    """Make the application."""

    async def answer(asked: Asked) -> Reply:
        return await server.trouble.strikes(asked) or server.reply(asked)

    return application(answer)
