"""``peft-studio experiments``: jobs as their trackers recorded them."""

from typing import Annotated

import typer
from rich.table import Table

from peft_studio.cli import SECTIONS
from peft_studio.cli.session import Session, command
from peft_studio.cli.tables import money, table
from peft_studio.experiments import Comparison

app = typer.Typer(help=SECTIONS["experiments"], no_args_is_help=True)


@command(app, "list")
def list_experiments(
    session: Session,
    tracker: Annotated[str | None, typer.Option(help="Only what this tracker recorded.")] = None,
    project: Annotated[str | None, typer.Option(help="Only this project.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=100)] = 20,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of a page: the page behind it.")] = None,
) -> None:
    """List experiments, newest first."""
    page = session.client.list_experiments(tracker=tracker, project=project, limit=limit, cursor=cursor)
    rows = [
        (one.id, one.status, one.name, one.project, one.metrics.get("final_loss"), one.metrics.get("accuracy"))
        for one in page.experiments
    ]
    session.show(page, lambda: table(("id", "status", "name", "project", "final loss", "accuracy"), rows))


@command(app, "compare")
def compare(
    session: Session,
    experiments: Annotated[
        list[str], typer.Argument(help="The ids of two or more experiments.", metavar="EXPERIMENT…")
    ],
) -> None:
    """Put experiments side by side."""
    found = session.client.compare_experiments(experiments)
    session.show(found, lambda: side_by_side(experiments, found))


def side_by_side(ids: list[str], found: Comparison) -> Table:
    """Lay out a comparison, an experiment a column."""
    costs = found.cost_analysis
    rows: list[list[object]] = [[name, *values] for name, values in found.metrics.items()]
    rows.append(["cost", *map(money, costs.total_costs)])
    rows.append(["cost a point of accuracy", *map(money, costs.cost_per_accuracy_point)])
    rows.append(["best", *("★" if one == found.best_performer else "" for one in ids)])
    return table(("", *ids), rows)
