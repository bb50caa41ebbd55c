"""Deployments: adapters that answer prompts."""

from typing import Annotated, Any

from litestar import Request, delete, get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body, FromPath, QueryParameter, SkipValidation

from api import examples
from api.auth import require
from api.dependencies import Caller
from api.deployment_wire import (
    MAX_PROMPT_BYTES,
    CreateDeployment,
    DeploymentCreated,
    DeploymentDeleted,
    DeploymentList,
    DeploymentShown,
    RenewDeployment,
    TestAnswer,
    TestPrompt,
)
from api.idempotency import IdempotencyKey
from api.openapi import documented
from infra.deploying.deployments import AdapterDeployments
from infra.deploying.dismissals import Dismissals
from peft_studio.deployments import DeploymentStatus

TheDeployments = NamedDependency[SkipValidation[AdapterDeployments]]


@post(
    "/deployments",
    summary="Deploy an adapter",
    responses=documented(DeploymentCreated, examples.DEPLOYING, 402, 403, 404, 409, 413, 415, status=201),
)
async def create_deployment(
    data: Annotated[CreateDeployment, Body(examples=[Example(value=examples.DEPLOY)])],
    deployments: TheDeployments,
    idempotency_key: IdempotencyKey,
) -> DeploymentCreated:
    """Have an adapter served, and answer before it is: it is once its status is ``running``."""
    created = await deployments.create(data.adapter_id, data.platform, data.config, key=idempotency_key)
    return DeploymentCreated.of(created)


@get(
    "/deployments",
    summary="List deployments",
    responses=documented(DeploymentList, {"deployments": [examples.SERVING], "next_cursor": None}),
)
async def list_deployments(
    deployments: TheDeployments,
    status: Annotated[DeploymentStatus | None, QueryParameter(description="Only deployments in this state.")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="At most so many deployments.")] = 20,
    cursor: Annotated[str | None, QueryParameter(description="The next_cursor of the page before.")] = None,
) -> DeploymentList:
    """Return deployments, newest first, and how busy each was in the last minute."""
    page = await deployments.list(status, limit, cursor)
    return DeploymentList(
        deployments=[DeploymentShown.of(looked) for looked in page.deployments], next_cursor=page.next_cursor
    )


@get(
    "/deployments/{deployment_id:str}",
    summary="Get a deployment",
    responses=documented(DeploymentShown, examples.SERVING, 404, 409),
)
async def get_deployment(deployments: TheDeployments, deployment_id: FromPath[str]) -> DeploymentShown:
    """Return one deployment: whether it answers and where, or why it failed."""
    return DeploymentShown.of(await deployments.get(deployment_id))


@post(
    "/deployments/{deployment_id:str}/test",
    status_code=200,
    summary="Test a deployment",
    request_max_body_size=MAX_PROMPT_BYTES,
    responses=documented(TestAnswer, examples.ANSWERED, 402, 403, 404, 409, 413, 415),
)
async def test_deployment(
    data: Annotated[TestPrompt, Body(examples=[Example(value=examples.PROMPT)])],
    deployments: TheDeployments,
    deployment_id: FromPath[str],
) -> TestAnswer:
    """Have a deployment answer a prompt, through its chat template if it was trained on conversations."""
    answer = await deployments.test(deployment_id, data.prompt, data.max_tokens, data.temperature)
    return TestAnswer(response=answer.text, latency_ms=answer.latency_ms, tokens_generated=answer.tokens_generated)


@post(
    "/deployments/{deployment_id:str}/renew",
    status_code=200,
    summary="Renew a deployment's lease",
    responses=documented(DeploymentShown, examples.SERVING, 403, 404, 409, 413, 415),
)
async def renew_deployment(
    data: Annotated[RenewDeployment, Body(examples=[Example(value={"lease_hours": 24})])],
    deployments: TheDeployments,
    deployment_id: FromPath[str],
) -> DeploymentShown:
    """Have a deployment served for so many hours from now; without renewal it is taken off at ``expires_at``."""
    return DeploymentShown.of(await deployments.renew(deployment_id, data.lease_hours))


@delete(
    "/deployments/{deployment_id:str}",
    status_code=200,
    summary="Delete a deployment",
    responses=documented(DeploymentDeleted, examples.DEPLOYMENT_DELETED, 403, 404, 409),
)
async def delete_deployment(
    deployments: TheDeployments,
    dismissals: NamedDependency[SkipValidation[Dismissals]],
    deployment_id: FromPath[str],
    request: Request[Caller, Any, Any],
    force: Annotated[
        bool, QueryParameter(description="Forget it though it cannot be taken off; takes an admin's key.")
    ] = False,
) -> DeploymentDeleted:
    """
    Take a deployment off, and answer once its platform shows nothing of it any more.

    Where that takes long it is 503: the deployment is stopped, and is to be deleted again in a moment. With `force` it
    is forgotten even where it cannot be seen to be gone, as when the platform does not take the key any more: what
    is there then is a person's to remove. Who wanted that is kept on record.
    """
    if force:
        require(request.user.role, "admin")
        await dismissals.dismiss(deployment_id, request.user.name)
    else:
        await deployments.remove(deployment_id)
    return DeploymentDeleted(deployment_id=deployment_id)


ROUTES = [create_deployment, list_deployments, get_deployment, test_deployment, renew_deployment, delete_deployment]
