"""Deployments as they are recorded, and where the records are kept: behind one protocol, in memory or in Prefect."""

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from prefect.client.schemas.objects import Variable
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infra.hosts.base import Hosted
from infra.prefect_database import PrefectDatabase
from infra.prefect_patience import answering
from infra.settings import LocalEngine
from peft_studio.deployments import DeploymentConfig, DeploymentStatus
from peft_studio.effect import EffectTest
from peft_studio.errors import Conflict, NotFound
from peft_studio.events import now

log = logging.getLogger(__name__)
PREFIX = "deploy_"
TAG = "peft-studio-deployment"
_VARIABLE = "deployment_"
_PAGE = 200
_MOST_WORDS = 500  # characters
CHECK_SECONDS = 1.0  # how often the keeper looks at the records


class Deployment(BaseModel):
    """An adapter that is to be served; ``deployment_id`` is the model's name at its endpoint."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    deployment_id: str
    adapter_id: str
    adapter: str = Field(description="The adapter's folder.")
    base_model: str = Field(description="The folder or hub id that its base model is loaded from.")
    revision: str | None = None
    platform: str = "local"
    config: DeploymentConfig = DeploymentConfig()
    chat: bool = Field(description="Whether a prompt goes through the chat template.")
    status: DeploymentStatus = DeploymentStatus.DEPLOYING
    endpoint: str | None = Field(default=None, description="Stays the same over restarts where it can.")
    engine: LocalEngine = Field(default=LocalEngine.OWN, description="What serves it where it is on this machine.")
    error: str | None = None
    effect: EffectTest | None = Field(default=None, description="Of the last time that it was loaded.")
    created_at: datetime = Field(default_factory=now)
    flow_run_id: UUID | None = Field(default=None, description="Of the flow run that brings it about.")
    files: str | None = Field(default=None, description="The folder that its platform is given, if not the adapter's.")
    hosted: Hosted | None = Field(default=None, description="As its platform showed it last; None on this machine.")
    expires_at: datetime | None = Field(default=None, description="When it is taken off, unless it is renewed.")
    warning: str | None = None
    reason: str | None = Field(default=None, description="Its platform's words on its state, or why it was stopped.")

    @property
    def is_wanted(self) -> bool:
        """Whether it is, or is to be, served."""
        return self.status in (DeploymentStatus.DEPLOYING, DeploymentStatus.RUNNING)


@dataclass(frozen=True)
class Unreadable:
    """A record that another version of the studio has written, or a hand: nobody knows whether it is wanted."""

    deployment_id: str
    platform: str | None = field(default=None, compare=False)  # as far as that can be made out


class Deployments(Protocol):
    """The records of all deployments."""

    async def all(self) -> Sequence[Deployment]:
        """Read all, oldest first; one that cannot be read is logged, and keeps no other from being seen."""
        ...

    async def unreadable(self) -> Sequence[Unreadable]:
        """Name those that cannot be read: what belongs to them is to be left as it is."""
        ...

    async def get(self, deployment_id: str) -> Deployment:
        """Read one; raises ``NotFound``, and ``Conflict`` where it cannot be read."""
        ...

    async def add(self, deployment: Deployment) -> None:
        """Add a new one; raises ``Conflict`` where its id is taken."""
        ...

    async def replace(self, deployment: Deployment) -> None:
        """Write a changed one; one that is gone meanwhile stays gone."""
        ...

    async def delete(self, deployment_id: str) -> None:
        """Delete one, if it is there."""
        ...


class DeploymentsInMemory:
    """Records that end with the process: ``values`` holds by id what Prefect would."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    async def all(self) -> Sequence[Deployment]:
        """Read all, oldest first."""
        return _told_apart(self.values)[0]

    async def unreadable(self) -> Sequence[Unreadable]:
        """Name those that cannot be read."""
        return _told_apart(self.values)[1]

    async def get(self, deployment_id: str) -> Deployment:
        """Read one; raises ``NotFound``, and ``Conflict`` where it cannot be read."""
        if deployment_id not in self.values:
            raise _not_found(deployment_id)
        return _read(deployment_id, self.values[deployment_id])

    async def add(self, deployment: Deployment) -> None:
        """Add a new one; raises ``Conflict`` where its id is taken."""
        if deployment.deployment_id in self.values:
            raise _taken(deployment)
        self.values[deployment.deployment_id] = _value(deployment)

    async def replace(self, deployment: Deployment) -> None:
        """Write a changed one; one that is gone meanwhile stays gone."""
        if deployment.deployment_id in self.values:
            self.values[deployment.deployment_id] = _value(deployment)

    async def delete(self, deployment_id: str) -> None:
        """Delete one, if it is there."""
        self.values.pop(deployment_id, None)


class DeploymentsInPrefect:
    """
    Records as variables of the Prefect server; ``client``, where given, is used and left open.

    With its ``database`` they are read there, which costs the server nothing. A server that is away raises
    ``ResourceUnavailable``.
    """

    def __init__(self, client: PrefectClient | None = None, database: PrefectDatabase | None = None):
        self._client = client
        self._database = database
        self._logged: set[Unreadable] = set()

    async def all(self) -> Sequence[Deployment]:
        """Read all, oldest first; one that cannot be read is logged once."""
        records, unreadable = _told_apart(await self._values())
        for one in set(unreadable) - self._logged:
            log.error("The record of %s cannot be read; it is left as it is.", one.deployment_id)
        self._logged |= set(unreadable)
        return records

    async def unreadable(self) -> Sequence[Unreadable]:
        """Name those that cannot be read."""
        return _told_apart(await self._values())[1]

    async def _values(self) -> Mapping[str, Any]:
        """Return what is stored of each, by id."""
        if self._database is not None:
            found = await self._database.variables(TAG)
        else:
            found = await self._from_server()
        return {PREFIX + name.removeprefix(_VARIABLE): value for name, value in found.items()}

    async def _from_server(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        async with self._prefect() as client:
            while len(found) % _PAGE == 0:
                query = {
                    "variables": {"tags": {"all_": [TAG]}},
                    "sort": "NAME_ASC",
                    "limit": _PAGE,
                    "offset": len(found),
                }
                response = await client.request("POST", "/variables/filter", json=query)
                page = Variable.model_validate_list(response.json())
                found |= {variable.name: variable.value for variable in page}
                if not page:
                    break
        return found

    async def get(self, deployment_id: str) -> Deployment:
        """Read one; raises ``NotFound``, and ``Conflict`` where it cannot be read."""
        name = _variable(deployment_id)
        if self._database is not None:
            found = await self._values()
            if deployment_id not in found:
                raise _not_found(deployment_id)
            return _read(deployment_id, found[deployment_id])
        async with self._prefect() as client:
            variable = await client.read_variable_by_name(name)
        if variable is None:
            raise _not_found(deployment_id)
        return _read(deployment_id, variable.value)

    async def add(self, deployment: Deployment) -> None:
        """Add a new one; raises ``Conflict`` where its id is taken."""
        name, value = _variable(deployment.deployment_id), _value(deployment)
        try:
            async with self._prefect() as client:
                await client.create_variable(VariableCreate(name=name, value=value, tags=[TAG]))
        except ObjectAlreadyExists:
            raise _taken(deployment) from None

    async def replace(self, deployment: Deployment) -> None:
        """Write a changed one; one that is gone meanwhile stays gone."""
        name, value = _variable(deployment.deployment_id), _value(deployment)
        try:
            async with self._prefect() as client:
                await client.update_variable(VariableUpdate(name=name, value=value))
        except ObjectNotFound:
            return

    async def delete(self, deployment_id: str) -> None:
        """Delete one, if it is there."""
        try:
            async with self._prefect() as client:
                await client.delete_variable_by_name(_variable(deployment_id))
        except ObjectNotFound:
            return

    @asynccontextmanager
    async def _prefect(self) -> AsyncGenerator[PrefectClient]:
        async with answering(), nullcontext(self._client) if self._client else get_client() as client:
            yield client


async def enter(records: Deployments, wanted: Deployment) -> Deployment:
    """
    Write a deployment down, or return the one that is there by its id; one that failed or was stopped starts over.

    Where another adapter, or one elsewhere, is known by the id it starts over, too: whoever asks has seen to that.
    """
    try:
        await records.add(wanted)
    except Conflict:
        known = await records.get(wanted.deployment_id)
        same = (known.adapter, known.base_model, known.platform) == (wanted.adapter, wanted.base_model, wanted.platform)
        if known.is_wanted and same:
            return known
        await records.replace(wanted)
    return wanted


def _read(deployment_id: str, value: Any) -> Deployment:
    try:
        return Deployment.model_validate(value)
    except ValidationError:
        raise Conflict(
            f"The record of {deployment_id} cannot be read: another version of the studio has written it, or a hand.",
            deployment_id=deployment_id,
        ) from None


def _told_apart(values: Mapping[str, Any]) -> tuple[list[Deployment], list[Unreadable]]:
    """Read what is stored by id: the records, oldest first, and those that cannot be read."""
    records, unreadable = list[Deployment](), list[Unreadable]()
    for deployment_id, value in values.items():
        try:
            records.append(_read(deployment_id, value))
        except Conflict:
            platform: Any = value.get("platform") if isinstance(value, dict) else None
            unreadable.append(Unreadable(deployment_id, platform if isinstance(platform, str) else None))
    return sorted(records, key=lambda record: record.created_at), unreadable


def _value(deployment: Deployment) -> dict[str, Any]:
    """Return what is stored: a variable holds 5,000 characters, and a platform's words may be as long as a log."""
    value = deployment.model_dump(mode="json")
    hosted = value["hosted"] or {}
    for holder, name in ((value, "error"), (value, "reason"), (hosted, "reason")):
        holder |= {name: text[:_MOST_WORDS]} if (text := holder.get(name)) else {}
    return value


def _variable(deployment_id: str) -> str:
    digits = deployment_id.removeprefix(PREFIX)
    if digits == deployment_id or not digits.isalnum() or digits != digits.lower() or len(digits) > 64:
        raise _not_found(deployment_id)  # nothing else may ever be read or changed by way of an id
    return _VARIABLE + digits


def _not_found(deployment_id: str) -> NotFound:
    return NotFound(f"There is no deployment {deployment_id!r}.", deployment_id=deployment_id)


def _taken(deployment: Deployment) -> Conflict:
    return Conflict("There is such a deployment already.", deployment_id=deployment.deployment_id)
