"""``peft-studio resources``: machines that jobs can train on."""

from typing import Annotated

import typer

from peft_studio.cli import SECTIONS
from peft_studio.cli.session import Session, command
from peft_studio.cli.tables import table
from peft_studio.resources import Resource

app = typer.Typer(help=SECTIONS["resources"], no_args_is_help=True)


@command(app, "list")
def list_resources(
    session: Session,
    provider: Annotated[str | None, typer.Option(help="Only this provider's machines.")] = None,
    available: Annotated[bool, typer.Option("--available", help="Only machines that take jobs.")] = False,
) -> None:
    """List machines, what they have and what they cost."""
    found = session.client.list_resources(provider=provider, available=available or None)
    columns = ("id", "provider", "name", "GPUs", "GPU memory", "cores", "memory", "storage", "an hour", "available")
    session.show(found, lambda: table(columns, map(_row, found.resources)))


def _row(one: Resource) -> tuple[object, ...]:
    price = f"{one.pricing.hourly_rate:g} {one.pricing.currency}"
    memory = f"{one.vram_gb:g} GB" if one.vram_gb else None
    sizes = (one.cpu_cores, f"{one.ram_gb:g} GB", f"{one.storage_gb:g} GB")
    return one.id, one.provider, one.name, one.gpu_count, memory, *sizes, price, one.available
