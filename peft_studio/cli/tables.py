"""How answers look to people."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from peft_studio.jobs import JobStatus

_WIDEST = 1000
_COLOURS = {
    JobStatus.PENDING: "yellow",
    JobStatus.RUNNING: "cyan",
    JobStatus.COMPLETED: "green",
    JobStatus.FAILED: "red",
    JobStatus.CANCELLED: "magenta",
}


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    """Lay out rows below their columns, each on one line."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(column, no_wrap=True)
    for row in rows:
        shown.add_row(*(text(cell) for cell in row))
    return shown


def facts(values: Mapping[str, object]) -> Table:
    """Lay out names and values, without those that have none."""
    shown = Table(box=None, pad_edge=False, show_header=False)
    shown.add_column(style="bold", no_wrap=True)
    shown.add_column(overflow="fold")
    for name, value in values.items():
        if value not in (None, "", [], {}):
            shown.add_row(name.replace("_", " "), text(value))
    return shown


def width_of(shown: Table, console: Console) -> int:
    """Return how wide a table is that is not squeezed: a narrow terminal wraps lines, a pipe has no width at all."""
    return max(console.width, console.measure(shown, options=console.options.update(max_width=_WIDEST)).maximum)


def text(value: object) -> str:
    """Write a value for people; what came from elsewhere is not taken for markup."""
    match value:
        case None:
            return "-"
        case JobStatus():
            return f"[{_COLOURS[value]}]{value}[/]"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
        case datetime():
            return f"{value.astimezone():%Y-%m-%d %H:%M}"
        case timedelta():
            return str(timedelta(seconds=round(value.total_seconds())))
        case list():
            items: list[Any] = value
            return ", ".join(text(item) for item in items)
        case _:
            return escape(str(value))


def size(count: float) -> str:
    """Write a number of bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def money(amount: float | None) -> str | None:
    """Write US dollars."""
    return None if amount is None else f"${amount:,.2f}"
