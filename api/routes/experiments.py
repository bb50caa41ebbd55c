"""Experiments: every job as its tracker records it, and several of them side by side."""

from typing import Annotated

from litestar import get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body, FromPath, QueryParameter, SkipValidation

from api import examples
from api.auth import READING
from api.openapi import documented
from api.wire import CompareExperiments, ExperimentComparison, ExperimentList
from infra.experiments import Experiments
from peft_studio.experiments import Experiment
from peft_studio.jobs import JobStatus

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
    """Return experiments, newest first."""
    page = await experiments.list(tracker=tracker, project=project, status=status, limit=limit, cursor=cursor)
    return ExperimentList(experiments=page.experiments, next_cursor=page.next_cursor)


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
    return ExperimentComparison(
        comparison=await experiments.compare(data.experiment_ids, data.metric, data.direction, data.curves)
    )


ROUTES = [list_experiments, get_experiment, compare_experiments]
