"""What the document says of the objectives is what the table says."""

import re
from pathlib import Path

from peft_studio.objectives import AIMS, Objective
from peft_studio.row_formats import RowFormat
from peft_studio.row_layouts import LAYOUTS

LINES = (Path(__file__).parents[2] / "docs/objectives.md").read_text().splitlines()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in LINES if line.startswith("| `")]
AIMED, LAID_OUT = ([row for row in ROWS if len(row) == width] for width in (5, 2))


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_every_objective_has_a_row_in_the_table_and_in_the_document() -> None:
    assert list(AIMS) == list(Objective)
    assert [names(row[0])[0] for row in AIMED] == list(Objective)


def test_the_document_says_what_the_table_says() -> None:
    for aim, (_, _, formats, options, served) in zip(AIMS.values(), AIMED, strict=True):
        assert (served == "yes") == aim.writes
        assert names(formats) == list(aim.formats)
        assert names(options) == list(aim.options)


def test_every_layout_has_its_columns_in_the_document() -> None:
    told = {names(row[0])[0]: set(names(row[1])) for row in LAID_OUT}
    assert list(told) == list(RowFormat)
    for layout, columns in LAYOUTS:
        assert set(columns) <= told[layout]
