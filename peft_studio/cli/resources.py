"""``peft-studio resources``: machines that jobs can train on."""

from typing import Annotated

import typer

from peft_studio.cli import SECTIONS
from peft_studio.cli.session import Session, command
from peft_studio.cli.tables import table
from peft_studio.resources import Pricing, Resource

app = typer.Typer(help=SECTIONS["resources"], no_args_is_help=True)


@command(app, "list")
def list_resources(
    session: Session,
    provider: Annotated[str | None, typer.Option(help="Only this provider's machines.")] = None,
    available: Annotated[bool, typer.Option("--available", help="Only machines that take jobs.")] = False,
) -> None:
    """List machines, what they have and what they cost."""
    found = session.client.list_resources(provider=provider, available=available or None)
    columns = (
        "id",
        "provider",
        "name",
        "GPUs",
        "GPU memory",
        "cores",
        "memory",
        "storage",
        "an hour",
        "spot",
        "available",
    )
    session.show(found, lambda: table(columns, map(_row, found.resources)))
    for silent in () if session.as_json else found.unavailable_providers:
        session.aside.print(f"No answer from {silent.provider}: {silent.reason}", markup=False)


def _row(one: Resource) -> tuple[object, ...]:
    price, spot = (_price(rate, one.pricing) for rate in (one.pricing.hourly_rate, one.pricing.spot_hourly_rate))
    sizes = (_gigabytes(size) for size in (one.ram_gb, one.storage_gb))
    gpus = (one.gpu_count, _gigabytes(one.vram_gb))
    return one.id, one.provider, one.name, *gpus, one.cpu_cores, *sizes, price, spot, one.available


def _price(rate: float | None, pricing: Pricing) -> str | None:
    return None if rate is None else f"{rate:g} {pricing.currency}"


def _gigabytes(size: float | None) -> str | None:
    return None if size is None else f"{size:g} GB"
