"""Adapters: what completed jobs have made."""

from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter, SkipValidation

from api import examples
from api.openapi import documented
from api.wire import AdapterList
from infra.adapter_records import AdapterRecords
from peft_studio.adapters import Adapter

TheAdapters = NamedDependency[SkipValidation[AdapterRecords]]


@get("/adapters", summary="List adapters", responses=documented(AdapterList, {"adapters": [examples.ADAPTER]}, 404))
async def list_adapters(
    adapters: TheAdapters,
    job_id: Annotated[str | None, QueryParameter(description="Only the adapter that this job made.")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="At most so many adapters.")] = 20,
) -> AdapterList:
    """Return adapters, those of the newest jobs first."""
    return AdapterList(adapters=await adapters.list(job_id, limit))


@get("/adapters/{adapter_id:str}", summary="Get an adapter", responses=documented(Adapter, examples.ADAPTER, 404))
async def get_adapter(adapters: TheAdapters, adapter_id: FromPath[str]) -> Adapter:
    """Return one adapter: which job made it of which base model, and where it lies."""
    return await adapters.get(adapter_id)


ROUTES = [list_adapters, get_adapter]
