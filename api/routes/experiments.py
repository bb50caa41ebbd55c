"""Experiments: every job as its tracker records it, and several of them side by side."""

import asyncio
from typing import Annotated

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body, FromPath, QueryParameter, SkipValidation

from api import examples
from api.auth import READING
from api.openapi import documented, documented_file
from api.wire import CompareExperiments, ExperimentComparison, ExperimentList
from infra.experiments.picture import MEDIA_TYPES, Kind, draw
from infra.experiments.records import CURVES, Experiments
from peft_studio.errors import InvalidConfig
from peft_studio.experiments import Experiment
from peft_studio.jobs import JobStatus

LONGEST_IDS = 20_000
_USUAL_CURVES = ",".join(CURVES)
TheExperiments = NamedDependency[SkipValidation[Experiments]]


@get(
    "/experiments",
    summary="List experiments",
    responses=documented(ExperimentList, examples.EXPERIMENTS, 404, 409),
)
async def list_experiments(
    experiments: TheExperiments,
    tracker: Annotated[str | None, QueryParameter(description="Only experiments that this tracker records.")] = None,
    project: Annotated[str | None, QueryParameter(description="Only this project's experiments.")] = None,
    status: Annotated[JobStatus | None, QueryParameter(description="Only experiments in this state.")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="At most so many experiments.")] = 20,
    cursor: Annotated[str | None, QueryParameter(description="The page before's next_cursor.")] = None,
) -> ExperimentList:
    """
    Return experiments, newest first: the studio's jobs, and the runs that connected trackers have beside them.

    `tracker=local` are all jobs and nothing else. A tracker that does not answer in time is named in
    `unavailable_trackers`.
    """
    page = await experiments.list(tracker=tracker, project=project, status=status, limit=limit, cursor=cursor)
    return ExperimentList(
        experiments=page.experiments, next_cursor=page.next_cursor, unavailable_trackers=page.unavailable
    )


@get(
    "/experiments/{experiment_id:str}",
    summary="Get an experiment",
    responses=documented(Experiment, examples.EXPERIMENT, 404),
)
async def get_experiment(experiments: TheExperiments, experiment_id: FromPath[str]) -> Experiment:
    """Return one experiment: what was tried, what came of it, and what it cost."""
    return await experiments.get(experiment_id)


@post(
    "/experiments/compare",
    status_code=200,
    summary="Compare experiments",
    opt=READING,
    responses=documented(ExperimentComparison, examples.COMPARISON, 404, 413, 415),
)
async def compare_experiments(
    data: Annotated[CompareExperiments, Body(examples=[Example(value=examples.COMPARE)])], experiments: TheExperiments
) -> ExperimentComparison:
    """
    Put experiments side by side, in the order of their ids: metrics, configurations, where these differ, costs, curves.

    The best performer has the highest accuracy where all have one, else the lowest loss; `metric` and `direction`
    choose otherwise. `curves` names the metrics that are wanted by step.
    """
    comparison = await experiments.compare(data.experiment_ids, data.metric, data.direction, data.curves)
    return ExperimentComparison.of(comparison, data.curves)


_Ids = Annotated[
    str,
    QueryParameter(
        name="ids",
        min_length=1,
        max_length=LONGEST_IDS,
        description="The experiments, with commas between them: the ids of `POST /experiments/compare`.",
    ),
]
_Curves = Annotated[
    str, QueryParameter(name="curves", min_length=1, max_length=1000, description="Metrics, with commas between them.")
]


@get(
    "/experiments/compare",
    summary="See experiments side by side",
    responses=documented_file("image/png", 404),
)
async def comparison_picture(
    experiments: TheExperiments,
    ids: _Ids,
    curves: _Curves = _USUAL_CURVES,
    picture_format: Annotated[Kind, QueryParameter(name="format", description="PNG or SVG.")] = "png",
) -> Response[bytes]:
    """Return the curves of a comparison as a picture: one panel a metric, one line an experiment."""
    comparison = await experiments.compare(_split("ids", ids, 100), curves=_split("curves", curves, 10))
    picture = await asyncio.to_thread(draw, comparison, picture_format)
    return Response(picture, media_type=MEDIA_TYPES[picture_format])


def _split(name: str, text: str, most: int) -> list[str]:
    values = [value.strip() for value in text.split(",") if value.strip()]
    if not 1 <= len(values) <= most:
        raise InvalidConfig.of(name, f"Must be 1 to {most}, with commas between them")
    return values


ROUTES = [list_experiments, get_experiment, compare_experiments, comparison_picture]
