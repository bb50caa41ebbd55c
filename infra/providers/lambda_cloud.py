"""Lambda Cloud: whole virtual machines by the minute, on which our image runs in Docker."""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, Field

from infra.providers import wire
from infra.providers.base import Account, MachineState, NoCapacity, Offer, Order, Rented, Unclear
from infra.providers.slugs import resource_id, vram_in
from infra.vendor_http import Answer, Call
from peft_studio.errors import InvalidConfig, ResourceUnavailable

_PLATFORM, _NAME = "lambda", "Lambda Cloud"
READ_PACE_SECONDS, LAUNCH_PACE_SECONDS = 1.0, 12.0  # from one call to the next, as the vendor's documents have it
_SSH_KEY = "peft-studio"  # nobody logs in with it: a launch just has to name one
_INCREMENT_SECONDS = 60
_BOOT_SECONDS, _LARGE_BOOT_SECONDS = 240.0, 750.0  # of up to 4 GPUs, and of 8
_ARM = re.compile(r"gh200|gb\d+", re.IGNORECASE)  # the trainer's image is for x86
_GIB = 1.073741824  # in GB
# There is no state for a command that has ended: the machine is active, and paid for, until it is terminated. An
# unhealthy one may recover; whether it still works is what it reports itself.
_STATES = {
    "booting": MachineState.BOOTING,
    "active": MachineState.RUNNING,
    "unhealthy": MachineState.RUNNING,
    "preempted": MachineState.LOST,
    "terminating": MachineState.LOST,
    "terminated": MachineState.LOST,
}
_UNKNOWN = "global/object-does-not-exist"
_UNPAID = ("global/account-inactive", "global/invalid-address")
_SOLD_OUT = ("instance-operations/launch/insufficient-capacity", "global/quota-exceeded", _UNKNOWN)


class _Specs(BaseModel):
    vcpus: int
    memory_gib: float
    storage_gib: float
    gpus: int


class _Type(BaseModel):
    name: str
    gpu_description: str = ""
    price_cents_per_hour: float
    specs: _Specs


class _Region(BaseModel):
    name: str


class _Item(BaseModel):
    instance_type: _Type
    regions: list[_Region] = Field(alias="regions_with_capacity_available")


class _Types(BaseModel):
    data: dict[str, _Item]


class _Instance(BaseModel):
    id: str
    name: str = ""
    status: str
    instance_type: _Type


class _Instances(BaseModel):
    data: list[_Instance]


class _OneInstance(BaseModel):
    data: _Instance


class _Launched(BaseModel):
    instance_ids: list[str] = Field(min_length=1)


class _Launch(BaseModel):
    data: _Launched


class _SshKey(BaseModel):
    name: str


class _SshKeys(BaseModel):
    data: list[_SshKey]


class LambdaCloud:
    """
    One account at Lambda Cloud, whose calls are kept apart as it asks for.

    It bills each minute from the end of the boot until a machine is terminated, ended command or not, and does not tell
    what that came to. Machines have no time limit of their own, and no spot price.
    """

    self_release = None  # an instance has no key of its own

    def __init__(
        self,
        account: Account,
        create_seconds: float = wire.CREATE_SECONDS,
        read_pace_seconds: float | None = None,
        launch_pace_seconds: float | None = None,
    ):
        self._account = account
        self._create_seconds = create_seconds
        paces = wire.pace(account.url, READ_PACE_SECONDS), wire.pace(account.url, LAUNCH_PACE_SECONDS)
        self._read_pace = paces[0] if read_pace_seconds is None else read_pace_seconds
        self._launch_pace = paces[1] if launch_pace_seconds is None else launch_pace_seconds

    async def offers(self) -> list[Offer]:
        """Return each type once for every region that has it, or once without a region where none has."""
        types = wire.understood(_Types, await self._ask("/instance-types")).data
        return [offer for item in types.values() for offer in _offers(item)]

    async def rent(self, offer: Offer, order: Order) -> Rented:
        """Launch a machine that runs the image as soon as it has booted; see ``Provider.rent``."""
        if not (region := offer.ref.get("region")):
            raise NoCapacity(f"{_NAME} has no such machine in any region at the moment.")
        body = {
            "region_name": region,
            "instance_type_name": offer.ref["type"],
            "ssh_key_names": [await self._ssh_key()],
            "name": order.name,
            "user_data": user_data(order),
        }
        async with wire.paced(f"{_PLATFORM}-launch", self._account.get("api_key"), self._launch_pace):
            await self._take_turn()
            call = self._call("/instance-operations/launch", "POST", body)
            answer = await wire.create(call, seconds=self._create_seconds)
        if answer.status != 200:
            raise self._not_launched(answer)
        try:
            launched = wire.understood(_Launch, answer).data.instance_ids[0]
        except ResourceUnavailable as error:
            raise Unclear(error.message) from None
        return Rented(id=launched, name=order.name, state=MachineState.BOOTING)

    async def machines(self) -> list[Rented]:
        """Return every instance that is not terminated."""
        instances = wire.understood(_Instances, await self._ask("/instances")).data
        return [_rented(instance) for instance in instances if instance.status != "terminated"]

    async def machine(self, machine_id: str) -> Rented | None:
        """Return one instance, unless it is terminated."""
        answer = await self._ask(f"/instances/{quote(machine_id, safe='')}", may_miss=True)
        instance = None if _code(answer) == _UNKNOWN else wire.understood(_OneInstance, answer).data
        return None if instance is None or instance.status == "terminated" else _rented(instance)

    async def release(self, machine_id: str) -> None:
        """Terminate an instance with its disk."""
        body = {"instance_ids": [machine_id]}
        await self._ask("/instance-operations/terminate", "POST", body, may_miss=True)

    async def billed(self, machine_id: str, name: str) -> float | None:
        """Return None: there is no such question in its API."""
        return None

    async def _ssh_key(self) -> str:
        """Return the name of one of the account's keys; of a new one, whose private part is dropped, if it has none."""
        answer = await self._ask("/ssh-keys", patience=self._create_seconds)
        names = [key.name for key in wire.understood(_SshKeys, answer).data]
        if not names:
            # Had another process the same thought, it exists already, which is as good.
            named = {"name": _SSH_KEY}
            await self._ask("/ssh-keys", "POST", named, patience=self._create_seconds, may_exist=True)
        return _SSH_KEY if not names or _SSH_KEY in names else names[0]

    async def _take_turn(self) -> None:
        async with wire.paced(_PLATFORM, self._account.get("api_key"), self._read_pace):
            pass

    def _call(self, path: str, method: str = "GET", body: Any = None) -> Call:
        headers = {"Authorization": f"Bearer {self._account.get('api_key')}", "Accept": "application/json"}
        return Call(self._account.url + path, method, headers=headers, body=body)

    async def _ask(
        self,
        path: str,
        method: str = "GET",
        body: Any = None,
        *,
        patience: float = wire.PATIENCE_SECONDS,
        may_miss: bool = False,
        may_exist: bool = False,
    ) -> Answer:
        """Ask for what may be asked again without harm."""
        await self._take_turn()
        answer = await wire.read(self._call(path, method, body), patience)
        code = _code(answer)
        if answer.status == 200 or (may_miss and code == _UNKNOWN) or (may_exist and code == "global/duplicate"):
            return answer
        raise self._refusal(answer)

    def _not_launched(self, answer: Answer) -> Exception:
        """Return the error of a refusal; none of them has created anything."""
        match _code(answer):
            case code if code in _SOLD_OUT:
                return NoCapacity(f"{_NAME} has no such machine at the moment: {self._said(answer)}")
            case _ if answer.status == 400:
                return InvalidConfig(f"{_NAME} refuses the order: {self._said(answer)}", platform=_PLATFORM)
            case _:
                return self._refusal(answer)

    def _refusal(self, answer: Answer) -> Exception:
        if _code(answer) in _UNPAID:
            return wire.out_of_credit(_NAME, _PLATFORM)
        if answer.status in (401, 403):
            return wire.refused(_NAME, _PLATFORM, answer.status)
        return ResourceUnavailable(f"{_NAME} answered {answer.status}: {self._said(answer)}")

    def _said(self, answer: Answer) -> str:
        return wire.words(_error(answer).get("message"), self._account)


def user_data(order: Order) -> str:
    """
    Return what cloud-init does on the first boot: run the image on all GPUs, once.

    The arguments are a list, which cloud-init quotes itself; JSON is YAML.
    """
    given = [word for name, value in order.environment.items() for word in ("--env", f"{name}={value}")]
    options = ["--detach", "--name", order.name, "--restart", "no", "--gpus", "all", "--ipc", "host"]
    run = ["docker", "run", *options, *given, order.image, *order.command]
    return f"#cloud-config\n{json.dumps({'runcmd': [run]})}\n"


def _offers(item: _Item) -> Iterator[Offer]:
    kind, specs = item.instance_type, item.instance_type.specs
    if specs.gpus < 1 or _ARM.search(f"{kind.name} {kind.gpu_description}"):
        return
    vram, gpu = vram_in(kind.gpu_description), re.sub(r"[()]", "", kind.gpu_description)
    rate = kind.price_cents_per_hour / 100
    for region in [region.name for region in item.regions] or [None]:
        yield Offer(
            provider=_PLATFORM,
            resource_id=resource_id(gpu, vram, specs.gpus),
            name=f"{gpu} x{specs.gpus}" if specs.gpus > 1 else gpu,
            gpu_type=gpu,
            gpu_count=specs.gpus,
            vram_gb=vram,
            cpu_cores=specs.vcpus,
            ram_gb=round(specs.memory_gib * _GIB, 1),
            storage_gb=round(specs.storage_gib * _GIB, 1),
            hourly_rate=rate,
            billing_increment=_INCREMENT_SECONDS,
            minimum_charge=rate * _INCREMENT_SECONDS / 3600,
            available=region is not None,
            region=region,
            boot_seconds=_BOOT_SECONDS if specs.gpus < 8 else _LARGE_BOOT_SECONDS,
            ref={"type": kind.name} | ({"region": region} if region else {}),
        )


def _rented(instance: _Instance) -> Rented:
    state = _STATES.get(instance.status, MachineState.RUNNING)
    return Rented(
        id=instance.id,
        name=instance.name,
        state=state,
        hourly_rate=instance.instance_type.price_cents_per_hour / 100,
        reason=instance.status if instance.status not in ("booting", "active") else "",
    )


def _error(answer: Answer) -> dict[str, Any]:
    body: Any = answer.body
    error: Any = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) else {}


def _code(answer: Answer) -> str:
    return str(_error(answer).get("code") or "")
