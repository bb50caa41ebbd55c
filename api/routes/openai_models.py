"""OpenAI's models: adapters that are deployed, asked by their ids through the studio's own address."""

from typing import Any

from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, SkipValidation
from litestar.response import Stream

from api.openai.objects import Model, Page
from infra.deploying.deployments import AdapterDeployments
from peft_studio.errors import InvalidConfig, NotFound

TheEndpoints = NamedDependency[SkipValidation[AdapterDeployments]]
AnyRequest = Request[Any, Any, Any]


@get("/v1/models", include_in_schema=False)
async def list_served_models(endpoints: TheEndpoints) -> Page[Model]:
    """Return the adapters that can be asked, newest first."""
    return Page[Model].of(await _served(endpoints), has_more=False)


@get("/v1/models/{model_id:path}", include_in_schema=False)
async def get_served_model(endpoints: TheEndpoints, model_id: FromPath[str]) -> Model:
    """Return one of them."""
    wanted = model_id.removeprefix("/")
    found = [model for model in await _served(endpoints) if model.id == wanted]
    if not found:
        raise NotFound(f"The model {wanted[:100]!r} does not exist, or is not deployed.", field="model")
    return found[0]


@post("/v1/chat/completions", status_code=200, include_in_schema=False)
async def create_chat_completion(request: AnyRequest, endpoints: TheEndpoints) -> Stream:
    """Answer a conversation."""
    return await _handed_on(request, endpoints, "/chat/completions")


@post("/v1/completions", status_code=200, include_in_schema=False)
async def create_completion(request: AnyRequest, endpoints: TheEndpoints) -> Stream:
    """Go on from a text."""
    return await _handed_on(request, endpoints, "/completions")


async def _handed_on(request: AnyRequest, endpoints: AdapterDeployments, path: str) -> Stream:
    body = await request.json()
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        raise InvalidConfig("model: name the adapter that is to answer.", field="model", issue="Required")
    answer = await endpoints.forward(path, body)
    return Stream(answer.pieces(), status_code=answer.status, media_type=answer.media_type, headers=answer.headers)


async def _served(endpoints: AdapterDeployments) -> list[Model]:
    running = await endpoints.running()
    return list({deployment.adapter_id: Model.of(deployment) for deployment in reversed(running)}.values())[::-1]


ROUTES = [list_served_models, get_served_model, create_chat_completion, create_completion]
