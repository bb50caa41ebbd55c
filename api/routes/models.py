"""Base models: search all sources at once, and see what it takes to train on one."""

from typing import Annotated, Any

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter, SkipValidation

from api.model_wire import ModelSearch, ModelShown
from api.openapi import documented
from infra.hubs.search import Models
from peft_studio.config import ModelSource

TheModels = NamedDependency[SkipValidation[Models]]
FOUND: dict[str, Any] = {
    "id": "meta-llama/Llama-2-7b-hf",
    "name": "Llama-2-7b-hf",
    "source": "huggingface",
    "size_gb": 13.477,
    "license": "llama2",
    "downloads": 1500000,
    "tags": ["text-generation", "llama"],
    "gated": True,
}
SEARCH: dict[str, Any] = {
    "models": [FOUND],
    "total": 1,
    "page": 1,
    "next_cursor": None,
    "unavailable_sources": [{"source": "ollama", "reason": "localhost:11434 cannot be reached (ConnectError)."}],
}
DETAILS: dict[str, Any] = FOUND | {
    "description": "LlamaForCausalLM with 6,738,415,616 parameters",
    "revision": "01c7f73d771dfac7d292323805ebc428287df4f9",
    "architecture": "LlamaForCausalLM",
    "parameters": 6738415616,
    "context_length": 4096,
    "has_chat_template": False,
    "hardware_requirements": {
        "min_vram_gb": 7.3,
        "recommended_vram_gb": 59.4,
        "vram": [
            {"algorithm": "lora", "quantization": "none", "min_gb": 20.6, "recommended_gb": 59.4},
            {"algorithm": "prompt_tuning", "quantization": "int4", "min_gb": 7.3, "recommended_gb": 22.8},
        ],
    },
    "compatible_algorithms": ["lora", "prompt_tuning"],
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "not_trainable": None,
}


@get("/models/search", summary="Search models", responses=documented(ModelSearch, SEARCH))
async def search_models(
    models: TheModels,
    q: Annotated[str, QueryParameter(max_length=200, description="Words of the name; by default any.")] = "",
    source: Annotated[ModelSource | None, QueryParameter(description="Only this source; by default all.")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="At most so many models.")] = 20,
    cursor: Annotated[str | None, QueryParameter(description="`next_cursor` of the page before.")] = None,
) -> ModelSearch:
    """
    Return models from all sources in turn, or from one.

    A source that does not answer in time is named in `unavailable_sources`; where it is the only one that was asked,
    the answer is RESOURCE_UNAVAILABLE. An answer is at most a minute old.
    """
    return ModelSearch.of(await models.search(q.strip(), source, limit, cursor))


@get(
    "/models/{source:str}/{model_id:path}",
    summary="Get a model's details",
    responses=documented(ModelShown, DETAILS, 404),
)
async def get_model(
    models: TheModels,
    source: FromPath[str],
    model_id: FromPath[str],
    revision: Annotated[str | None, QueryParameter(max_length=200, description="A commit, tag or branch.")] = None,
) -> ModelShown:
    """Return what is known of a model before it is downloaded; its id may contain slashes."""
    return ModelShown.of(await models.details(source, model_id.removeprefix("/"), revision))


ROUTES = [search_models, get_model]
