"""
What rented machines ask of the studio: their work, its files, orders; and where they leave what comes of it.

No part of the API that users were promised: only ``peft_studio.remote`` calls it. A machine has a claim, which one
machine can use once, and then a token that opens its own mailbox and nothing else; see ``infra/rendezvous/door.py``.
"""

import asyncio
import secrets
from typing import Annotated, Any

from litestar import Request, Response, get, put
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter, SkipValidation

from api.auth import PUBLIC, bearer_key
from api.downloads import Wanted, send_file
from api.uploads import receive_body
from infra.credentials import CredentialStore
from infra.disk_space import require_space
from infra.rendezvous.door import CallbackDoor, hub_secrets
from infra.rendezvous.mailbox import largest
from infra.settings import Settings
from peft_studio.errors import NotFound
from peft_studio.remote.assignment import CLAIMANT

AnyRequest = Request[Any, Any, Any]
TheSettings = NamedDependency[SkipValidation[Settings]]
TheCredentials = NamedDependency[SkipValidation[CredentialStore]]


@get("/rendezvous/{machine:str}/claims/{code:str}", opt=PUBLIC, include_in_schema=False)
async def claim_work(
    settings: TheSettings,
    credentials: TheCredentials,
    machine: FromPath[str],
    code: FromPath[str],
    claimant: Annotated[str, HeaderParameter(name=CLAIMANT, min_length=16, max_length=100)],
) -> Response[bytes]:
    """Hand a machine its work, to the first that asks."""
    door = CallbackDoor(settings, machine)
    assignment = await asyncio.to_thread(door.claim, code, claimant)
    assignment = assignment.model_copy(update={"secrets": await hub_secrets(credentials)})
    return _private(assignment.model_dump_json().encode())


@get("/rendezvous/{machine:str}/orders", opt=PUBLIC, include_in_schema=False)
async def read_orders(request: AnyRequest, settings: TheSettings, machine: FromPath[str]) -> Response[bytes]:
    """Say what is wanted of a machine."""
    door = await _entered(request, settings, machine)
    return _private((await asyncio.to_thread(door.orders)).model_dump_json().encode())


@get("/rendezvous/{machine:str}/inputs/{path:path}", opt=PUBLIC, include_in_schema=False)
async def fetch_input(
    request: AnyRequest, settings: TheSettings, machine: FromPath[str], path: FromPath[str]
) -> Response[Any]:
    """Send a machine one of the files it works on."""
    door = await _entered(request, settings, machine)
    file = await asyncio.to_thread(door.input, path.removeprefix("/"))
    return await send_file(file, Wanted())


@put(
    "/rendezvous/{machine:str}/files/{path:path}",
    opt=PUBLIC,
    status_code=204,
    include_in_schema=False,
    request_max_body_size=None,  # what counts is the place, and max_dataset_bytes
)
async def leave_file(request: AnyRequest, settings: TheSettings, machine: FromPath[str], path: FromPath[str]) -> None:
    """Take a file into a machine's mailbox, whole or not at all."""
    door = await _entered(request, settings, machine)
    place = path.removeprefix("/")
    most = min(largest(place), settings.max_dataset_bytes)
    if most < 0:
        raise NotFound("There is no such place in a mailbox.")
    target = door.folder / "box" / place
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    await asyncio.to_thread(require_space, settings.data_dir, request.content_length or 0, settings.disk_reserve_bytes)
    await asyncio.to_thread(lambda: target.parent.mkdir(parents=True, exist_ok=True))
    try:
        await receive_body(request, temporary, int(most))
        await _entered(request, settings, machine)  # the door may have been shut meanwhile
        await asyncio.to_thread(temporary.replace, target)
    finally:
        await asyncio.to_thread(temporary.unlink, missing_ok=True)


async def _entered(request: AnyRequest, settings: Settings, machine: str) -> CallbackDoor:
    """Let the machine in whose token this is; raises ``AuthenticationFailed``."""
    door = CallbackDoor(settings, machine)
    await asyncio.to_thread(door.require, bearer_key(request.headers) or "")
    return door


def _private(content: bytes) -> Response[bytes]:
    return Response(content, media_type="application/json", headers={"Cache-Control": "no-store"})


ROUTES = [claim_work, read_orders, fetch_input, leave_file]
