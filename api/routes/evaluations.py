"""Evaluations: adapters measured beside their base models; asked for, looked at, stopped and deleted."""

from typing import Annotated

from litestar import delete, get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body, FromPath, QueryParameter, SkipValidation

from api import evaluation_examples as examples
from api.evaluation_wire import EvaluationDeleted, EvaluationList, EvaluationShown
from api.idempotency import IdempotencyKey
from api.openapi import documented
from infra.evaluations.evaluations import AdapterEvaluations
from peft_studio.evaluations import EvaluationWanted
from peft_studio.jobs import JobStatus

TheEvaluations = NamedDependency[SkipValidation[AdapterEvaluations]]


@post(
    "/evaluations",
    summary="Evaluate an adapter",
    responses=documented(EvaluationShown, examples.QUEUED, 403, 404, 409, 413, 415, status=201),
)
async def create_evaluation(
    data: Annotated[EvaluationWanted, Body(examples=[Example(value=examples.WANTED)])],
    evaluations: TheEvaluations,
    idempotency_key: IdempotencyKey,
) -> EvaluationShown:
    """Have an adapter measured beside its base model, and answer before it is: see `status`."""
    return EvaluationShown.of(await evaluations.create(data, key=idempotency_key))


@get("/evaluations", summary="List evaluations", responses=documented(EvaluationList, examples.LIST))
async def list_evaluations(
    evaluations: TheEvaluations,
    adapter_id: Annotated[str | None, QueryParameter(description="Only the evaluations of this adapter.")] = None,
    status: Annotated[JobStatus | None, QueryParameter(description="Only evaluations in this state.")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="At most so many evaluations.")] = 20,
    cursor: Annotated[str | None, QueryParameter(description="The next_cursor of the page before.")] = None,
) -> EvaluationList:
    """Return evaluations, newest first."""
    page = await evaluations.list(adapter_id, status, limit, cursor)
    return EvaluationList(
        evaluations=[EvaluationShown.of(one) for one in page.evaluations], next_cursor=page.next_cursor
    )


@get(
    "/evaluations/{evaluation_id:str}",
    summary="Get an evaluation",
    responses=documented(EvaluationShown, examples.DONE, 404),
)
async def get_evaluation(evaluations: TheEvaluations, evaluation_id: FromPath[str]) -> EvaluationShown:
    """Return one evaluation: how far it is, what came of it, or why it failed."""
    return EvaluationShown.of(await evaluations.get(evaluation_id))


@post(
    "/evaluations/{evaluation_id:str}/cancel",
    status_code=200,
    summary="Cancel an evaluation",
    responses=documented(EvaluationShown, examples.CANCELLED, 403, 404, 409),
)
async def cancel_evaluation(evaluations: TheEvaluations, evaluation_id: FromPath[str]) -> EvaluationShown:
    """Stop an evaluation."""
    return EvaluationShown.of(await evaluations.cancel(evaluation_id))


@delete(
    "/evaluations/{evaluation_id:str}",
    status_code=200,
    summary="Delete an evaluation",
    responses=documented(EvaluationDeleted, examples.DELETED, 403, 404, 409),
)
async def delete_evaluation(evaluations: TheEvaluations, evaluation_id: FromPath[str]) -> EvaluationDeleted:
    """Delete an evaluation that has ended, and what came of it; the adapter stays as it is."""
    await evaluations.delete(evaluation_id)
    return EvaluationDeleted(evaluation_id=evaluation_id)


ROUTES = [create_evaluation, list_evaluations, get_evaluation, cancel_evaluation, delete_evaluation]
