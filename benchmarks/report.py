"""What a benchmark says: figures, their limits, and a table of them."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured value, and what it must not exceed or fall short of."""

    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the value is within its limit; None where there is none."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return self.value >= self.at_least if self.at_least is not None else None


def show(title: str, figures: list[Figure]) -> bool:
    """Print a table; tell whether every limit holds."""
    table = Table("what", "measured", "limit", "", title=title, title_justify="left")
    for figure in figures:
        limit = f"≤ {figure.at_most:g}" if figure.at_most is not None else ""
        limit = f"≥ {figure.at_least:g}" if figure.at_least is not None else limit
        mark = {True: "holds", False: "[red]missed[/]", None: ""}[figure.holds]
        table.add_row(figure.name, f"{figure.value:,.4g} {figure.unit}", limit, mark)
    Console().print(table)
    return all(figure.holds is not False for figure in figures)
