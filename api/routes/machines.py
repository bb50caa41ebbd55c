"""Rented machines: which there are, and what became of each."""

from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.params import QueryParameter, SkipValidation

from api import resource_examples as examples
from api.openapi import documented
from api.wire import MachineList
from infra.machines.reads import Machines

TheMachines = NamedDependency[SkipValidation[Machines]]


@get("/machines", summary="List rented machines", responses=documented(MachineList, examples.MACHINES))
async def list_machines(
    machines: TheMachines,
    active: Annotated[bool, QueryParameter(description="Only machines that are not gone yet.")] = False,
    provider: Annotated[str | None, QueryParameter(description="Only this provider's machines.")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=1000, description="At most so many of the newest.")] = 100,
) -> MachineList:
    """
    Return the receipts of machines that were rented for jobs, the newest first.

    One whose status is `stranded` needs a person: the studio cannot end it, and it may cost money.
    """
    found = await (machines.not_over() if active else machines.latest(limit, provider))
    newest = [one for one in reversed(found) if provider in (None, one.provider)]
    return MachineList(machines=newest[:limit])


ROUTES = [list_machines]
