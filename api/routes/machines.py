"""Rented machines: which there are, and what became of each."""

from typing import Annotated, Any

from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body, FromPath, QueryParameter, SkipValidation

from api import resource_examples as examples
from api.auth import needs
from api.dependencies import Caller
from api.openapi import documented
from api.wire import MachineList
from infra.machines.reads import Machines
from peft_studio.machines import MachineReceipt, Settlement

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


@post(
    "/machines/{name:str}/settle",
    status_code=200,
    opt=needs("admin"),
    summary="Settle a stranded machine",
    responses=documented(MachineReceipt, examples.SETTLED, 403, 404, 409, 413, 415),
)
async def settle_machine(
    data: Annotated[Settlement, Body(examples=[Example(value=examples.SETTLE)])],
    machines: TheMachines,
    name: FromPath[str],
    request: Request[Caller, Any, Any],
) -> MachineReceipt:
    """
    Close the receipt of a machine whose vendor nobody has an account with any more. It takes an admin's key.

    See first that the machine is gone. Who has settled it, when and for how much is kept in its receipt. Where there is
    a key that its vendor takes, connect the platform with it instead: the studio then looks by itself.
    """
    return await machines.settle(name, data.cost, request.user.name)


ROUTES = [list_machines, settle_machine]
