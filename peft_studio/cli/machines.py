"""``peft-studio machines``: what was rented for jobs."""

from typing import Annotated

import typer

from peft_studio.cli import SECTIONS
from peft_studio.cli.session import Session, command
from peft_studio.cli.tables import money, table
from peft_studio.machines import MachineReceipt

app = typer.Typer(help=SECTIONS["machines"], no_args_is_help=True)


@command(app, "list")
def list_machines(
    session: Session,
    active: Annotated[bool, typer.Option("--active", help="Only machines that are not gone yet.")] = False,
    provider: Annotated[str | None, typer.Option(help="Only this provider's machines.")] = None,
) -> None:
    """List rented machines, the newest first, and what each has cost."""
    found = session.client.list_machines(active=active or None, provider=provider)
    columns = ("machine", "of job", "provider", "kind", "status", "an hour", "rented", "gone", "cost")
    session.show(found, lambda: table(columns, map(_row, found.machines)))
    for one in () if session.as_json else found.machines:
        if one.status == "stranded":
            session.aside.print(f"{one.name} at {one.provider}: {one.reason}", markup=False)


@command(app, "settle")
def settle_machine(
    session: Session,
    name: Annotated[str, typer.Argument(help="The machine's name, as `machines list` shows it.")],
    cost: Annotated[float, typer.Option(help="What it has cost, in US dollars, by its vendor's own console.")],
) -> None:
    """Close the receipt of a machine that is stranded and gone, where no key of its vendor's is left (admins only)."""
    closed = session.client.settle_machine(name, cost)
    session.show(closed, lambda: f"{closed.name} is settled: {money(closed.cost)}.")


def _row(one: MachineReceipt) -> tuple[object, ...]:
    rate = one.offered_rate if one.hourly_rate is None else one.hourly_rate
    times = (f"{at:%Y-%m-%d %H:%M}" if at else None for at in (one.rented_at, one.gone_at))
    return one.name, one.job_id, one.provider, one.resource_id, one.status, money(rate), *times, money(one.cost)
