"""What the document says of the algorithms is what the table says."""

import re
from pathlib import Path

from peft_studio.algorithm_table import METHODS
from peft_studio.algorithms import Algorithm
from peft_studio.config import TrainingConfig

LINES = (Path(__file__).parents[2] / "docs/algorithms.md").read_text().split("## Sizes")[0].splitlines()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in LINES if line.startswith("| `")]


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_every_algorithm_has_a_row_in_the_table_and_in_the_document() -> None:
    assert list(METHODS) == list(Algorithm)
    assert [names(row[0])[0] for row in ROWS] == list(Algorithm)


def test_the_document_says_what_the_table_says() -> None:
    for algorithm, (_, _, fields, options, held, served) in zip(Algorithm, ROWS, strict=True):
        method = METHODS[algorithm]
        assert names(fields) == [field for field in method.takes if field != "seed"]
        assert names(options) == list(method.options)
        assert held.split(", ") == list(method.quantizations)
        assert (served == "yes") == method.served


def test_the_fields_of_the_table_are_those_of_a_job() -> None:
    assert {field for method in METHODS.values() for field in method.takes} <= set(TrainingConfig.model_fields)
