"""API keys, for admins: list, create, revoke."""

from typing import Annotated

from litestar import delete, get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body, FromPath, QueryParameter, SkipValidation

from api import key_examples
from api.auth import needs
from api.dependencies import Keys
from api.idempotency import SECRET
from api.key_wire import CreateKey, KeyCreated, KeyList, KeyRevoked
from api.openapi import documented
from peft_studio.errors import InvalidConfig

TheKeys = NamedDependency[SkipValidation[Keys]]
ADMIN = needs("admin")


@get("/keys", summary="List API keys", opt=ADMIN, responses=documented(KeyList, {"keys": [key_examples.KEY]}, 403))
async def list_keys(
    keys: TheKeys,
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="At most so many keys.")] = 20,
    cursor: Annotated[str | None, QueryParameter(description="Go on behind the page with this `next_cursor`.")] = None,
) -> KeyList:
    """Return all keys, oldest first, revoked ones too; the keys themselves are nowhere kept."""
    found = list(await keys.list())
    ids = [key.id for key in found]
    if cursor is not None and cursor not in ids:
        raise InvalidConfig("This is not a cursor of this list.", field="cursor", issue="Send one you received")
    start = ids.index(cursor) + 1 if cursor is not None else 0
    page = found[start : start + limit]
    return KeyList(keys=page, next_cursor=page[-1].id if len(found) > start + limit else None)


@post(
    "/keys",
    summary="Create an API key",
    opt={**ADMIN, **SECRET},
    responses=documented(KeyCreated, {**key_examples.KEY, "key": "ps_…"}, 403, 409, 413, 415, status=201),
)
async def create_key(
    data: Annotated[CreateKey, Body(examples=[Example(value={"name": "laptop", "role": "write"})])], keys: TheKeys
) -> KeyCreated:
    """Make a key. The answer shows it, once; only a hash of it is stored."""
    key, secret = await keys.create(data.name, data.role)
    return KeyCreated(**key.model_dump(), key=secret)


@delete(
    "/keys/{key_id:str}",
    status_code=200,
    summary="Revoke an API key",
    opt=ADMIN,
    responses=documented(KeyRevoked, {"success": True, "id": key_examples.KEY["id"]}, 403, 404),
)
async def revoke_key(key_id: FromPath[str], keys: TheKeys) -> KeyRevoked:
    """Make a key useless, for good; within seconds the WebSockets that it opened are closed."""
    key = await keys.revoke(key_id)
    return KeyRevoked(id=key.id)


ROUTES = [list_keys, create_key, revoke_key]
