"""What answers of Vast.ai mean: its offers, its machines, and why it refuses."""

from datetime import UTC, datetime
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from infra.providers.base import Account, MachineState, NoCapacity, Offer, Rented, Unclear
from infra.providers.slugs import resource_id
from infra.providers.wire import out_of_credit, refused, words
from infra.vendor_http import Answer
from peft_studio.errors import InvalidConfig, ResourceUnavailable, StudioError

PLATFORM, NAME = "vast", "Vast.ai"
_BOOT_SECONDS = 60.0
_BROKEN_HOST = "OCI runtime create failed"  # seen on hosts that never start a container


class _Ask(BaseModel):
    """An offer as the vendor writes it: MB of memory, GB of disk, US dollars an hour for the whole machine."""

    id: int
    gpu_name: str
    num_gpus: int
    gpu_ram: float
    dph_total: float
    dph_base: float | None = None
    min_bid: float | None = None
    cpu_cores_effective: float | None = None
    cpu_ram: float | None = None
    disk_space: float | None = None
    geolocation: str | None = None


class _Instance(BaseModel):
    """A machine as the vendor writes it."""

    id: int
    label: str | None = None
    actual_status: str | None = None
    intended_status: str | None = None
    cur_state: str | None = None
    next_state: str | None = None
    is_bid: bool | None = None
    status_msg: str | None = None
    dph_total: float | None = None
    start_date: float | None = None


class _Part(BaseModel):
    amount: float


class _Charge(_Part):
    """What a machine was charged in some days, in US dollars, and of which parts that consists."""

    source: str
    items: list[_Part] = []


def offers_of(row: Any) -> list[Offer]:
    """Return an offer at the host's price, and one at the least bid; none where the row tells too little."""
    try:
        ask = _Ask.model_validate(row)
    except ValidationError:
        return []
    vram = float(round(ask.gpu_ram / 1024))
    prices = [(ask.dph_total, False, {"ask": str(ask.id)})]
    if ask.min_bid and ask.dph_base is not None:
        disk = max(0.0, ask.dph_total - ask.dph_base)
        prices.append((ask.min_bid + disk, True, {"ask": str(ask.id), "bid": str(ask.min_bid)}))
    return [
        Offer(
            provider=PLATFORM,
            resource_id=resource_id(ask.gpu_name, vram, ask.num_gpus),
            name=f"{ask.num_gpus}x {ask.gpu_name}",
            gpu_type=ask.gpu_name,
            gpu_count=ask.num_gpus,
            vram_gb=vram,
            cpu_cores=int(ask.cpu_cores_effective) if ask.cpu_cores_effective else None,
            ram_gb=round(ask.cpu_ram / 1024, 1) if ask.cpu_ram else None,
            storage_gb=ask.disk_space,
            hourly_rate=rate,
            spot=spot,
            billing_increment=1,
            minimum_charge=rate / 3600,
            region=ask.geolocation,
            boot_seconds=_BOOT_SECONDS,
            ref=ref,
        )
        for rate, spot, ref in prices
    ]


def machine_of(row: Any, account: Account) -> Rented:
    """Read a machine; raises ``ResourceUnavailable`` where it cannot be read, since it must not go unseen."""
    try:
        instance = _Instance.model_validate(row)
    except ValidationError:
        raise ResourceUnavailable("Vast.ai shows a machine in a way that cannot be read; see its console.") from None
    return Rented(
        id=str(instance.id),
        name=instance.label or "",
        state=_state(instance),
        hourly_rate=instance.dph_total,
        created_at=datetime.fromtimestamp(instance.start_date, UTC) if instance.start_date else None,
        reason=words(instance.status_msg, account),
    )


def _state(instance: _Instance) -> MachineState:
    """
    Read the container's status, and tell a command that has ended from a machine that was taken away.

    Both show as exited. Where the command ended, the hardware (``cur_state``) still runs and is paid for. A machine
    that was outbid is stopped altogether, and may go on in hours or never, so it counts as lost.
    """
    hardware = {instance.cur_state, instance.next_state}
    if hardware == {"stopped"} and instance.actual_status != "running":
        was_stopped = instance.intended_status == "stopped" and not instance.is_bid
        return MachineState.ENDED if was_stopped else MachineState.LOST
    match instance.actual_status:
        case "running":
            return MachineState.RUNNING
        case "exited" | "stopped":
            return MachineState.ENDED
        case "offline" | "unknown" | "frozen":
            return MachineState.LOST
        case "created" if _BROKEN_HOST in (instance.status_msg or ""):
            return MachineState.LOST
        case _:
            return MachineState.BOOTING


def charge_of(row: Any, machine_id: str) -> float | None:
    """Return what a row of charges says of a machine: its parts where it has any, since their sum is shown rounded."""
    try:
        charge = _Charge.model_validate(row)
    except ValidationError:
        return None
    if charge.source != f"instance-{machine_id}":
        return None
    return sum(part.amount for part in charge.items) if charge.items else charge.amount


def issue_of(answer: Answer) -> StudioError:
    """Return why nothing was rented; the vendor's code, not its status, tells."""
    code = str(fields_of(answer.body).get("error") or "")
    words = f"{code} {fields_of(answer.body).get('msg')}".lower()
    if is_refusal(answer):
        return refused(NAME, PLATFORM, answer.status)
    if answer.status == 410 or "no_such_ask" in words:
        return NoCapacity("The offer at Vast.ai is gone; another may do.")
    if answer.status == 402 or "credit" in words:
        return out_of_credit(NAME, PLATFORM)
    if code == "invalid_price":
        return NoCapacity("Others bid more for this machine at Vast.ai by now; another may do.")
    if answer.status == 200 and answer.body is not None:
        return NoCapacity("Vast.ai could not start the machine; another may do.")
    if answer.status == 403:
        return NoCapacity("Vast.ai does not rent this machine to this account; another may do.")
    if answer.status in (400, 422):
        return InvalidConfig("Vast.ai finds fault with the order; its image or its disk may be what it cannot have.")
    return Unclear(f"Vast.ai answered {answer.status}; whether it has created a machine is not known.")


def is_refusal(answer: Answer) -> bool:
    """Tell whether the key is not taken: a wrong one is a 404 there, and 403 is also said of single offers."""
    code = fields_of(answer.body).get("error")
    return answer.status == 401 or code == "auth_error" or (answer.status == 403 and code is None)


def is_gone(answer: Answer) -> bool:
    """Tell whether the vendor knows of no such machine; a 404 that is not its own says nothing."""
    return answer.status == 404 and fields_of(answer.body).get("success") is False


def good(answer: Answer) -> Answer:
    """Return an answer that can be read; raises ``ResourceUnavailable``."""
    if answer.status != 200 or not isinstance(answer.body, dict):
        raise ResourceUnavailable(f"Vast.ai gave no answer that can be read ({answer.status}); try again later.")
    return answer


def fields_of(body: Any) -> dict[str, Any]:
    """Return what an answer consists of; nothing where it is no JSON object."""
    return cast(dict[str, Any], body) if isinstance(body, dict) else {}
