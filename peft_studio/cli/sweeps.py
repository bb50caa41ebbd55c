"""``peft-studio sweeps``: try out hyperparameters."""

from typing import Annotated

import typer
from rich.table import Table

from peft_studio.cli import SECTIONS
from peft_studio.cli.experiments import side_by_side
from peft_studio.cli.job_file import read_file, with_changes
from peft_studio.cli.session import Session, command
from peft_studio.cli.tables import money, table, text
from peft_studio.sweeps import Sweep, SweepPoint

app = typer.Typer(help=SECTIONS["sweeps"], no_args_is_help=True)

SweepId = Annotated[str, typer.Argument(help="The sweep's id.", metavar="SWEEP")]


@command(app, "create")
def create(
    session: Session,
    file: Annotated[str, typer.Argument(help="A YAML or JSON file with the sweep; - reads it from stdin.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a field: parallel=2, config.max_steps=50.")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="A key of your own: with it, the same sweep again gives the first one.")
    ] = None,
) -> None:
    """Start a sweep."""
    sweep = session.client.create_sweep(with_changes(read_file(file), changes or []), idempotency_key=idempotency_key)
    session.show(sweep, lambda: sweep.sweep_id)
    if not session.as_json:
        dropped = f", {sweep.duplicates} dropped that were there already" if sweep.duplicates else ""
        session.aside.print(f"{len(sweep.points)} points{dropped}")


@command(app, "list")
def list_sweeps(
    session: Session,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=100)] = 20,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of a page: the page behind it.")] = None,
) -> None:
    """List sweeps, newest first."""
    page = session.client.list_sweeps(limit=limit, cursor=cursor)
    rows = [(one.sweep_id, one.status, one.name, one.points, one.metric, one.created_at) for one in page.sweeps]
    session.show(page, lambda: table(("id", "status", "name", "points", "metric", "created"), rows))


@command(app, "show")
def show(session: Session, sweep_id: SweepId) -> None:
    """Show a sweep: its points, the best so far, what was stopped early and why."""
    sweep = session.client.get_sweep(sweep_id)
    session.show(sweep, lambda: _points(sweep))
    if not session.as_json:
        session.aside.print(f"{text(sweep.status)}, {money(sweep.cost)}. {sweep.message or ''}")


@command(app, "compare")
def compare(session: Session, sweep_id: SweepId) -> None:
    """Put the points of a sweep side by side, as experiments."""
    found = session.client.compare_sweep(sweep_id)
    session.show(found, lambda: side_by_side(found.experiment_ids, found))


@command(app, "cancel")
def cancel(session: Session, sweep_id: SweepId) -> None:
    """Cancel a sweep and its jobs."""
    cancelled = session.client.cancel_sweep(sweep_id)
    session.show(cancelled, lambda: f"{cancelled.sweep_id} {text(cancelled.status)}")


def _points(sweep: Sweep) -> Table:
    fields = list(dict.fromkeys(name for point in sweep.points for name in point.changes))
    columns = ("", *fields, "status", sweep.metric, "cost", "job", "reason")
    return table(columns, (_row(sweep, point, fields) for point in sweep.points))


def _row(sweep: Sweep, point: SweepPoint, fields: list[str]) -> list[object]:
    mark = f"{point.number} ★" if point.number == sweep.best else str(point.number)
    changes = [point.changes.get(name) for name in fields]
    return [mark, *changes, str(point.status), point.value, money(point.cost), point.job_id, point.reason]
