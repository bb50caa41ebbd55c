"""Which promotion gates can ever be passed, said before anything is trained."""

from peft_studio.config import TrainingConfig
from peft_studio.datasets import split_rows
from peft_studio.errors import InvalidConfig
from peft_studio.evaluation.bootstrap import FEWEST_ROWS
from peft_studio.evaluation.comparison import GENERATED
from peft_studio.objectives import Objective
from peft_studio.plan import DatasetFacts
from peft_studio.row_formats import RowFormat

_UNANSWERED = (RowFormat.TEXT, RowFormat.PROMPT)


def check_gate(config: TrainingConfig, dataset: DatasetFacts) -> None:
    """Raise ``InvalidConfig`` with the field where a job's gate asks for what its evaluation will not have."""
    if config.deploy is None or config.deploy.only_if is None:
        return
    measure = config.deploy.only_if.measure
    if measure not in GENERATED and config.objective is not Objective.SFT:
        others = ", ".join(GENERATED)
        raise _refused(
            "deploy.only_if.measure", f"of {config.objective}, {measure} has no interval; use one of {others}"
        )
    if measure in GENERATED and dataset.format in _UNANSWERED:
        raise _refused("deploy.only_if.measure", f"rows of {dataset.format} have no answer to compare with")
    _, held_out = split_rows(dataset.rows, config.validation_split, config.seed)
    if len(held_out) < FEWEST_ROWS:
        raise _refused(
            "validation_split", f"the gate takes at least {FEWEST_ROWS} held-out rows, these are {len(held_out)}"
        )
    if measure in GENERATED and config.evaluation.generation_rows < FEWEST_ROWS:
        raise _refused(
            "evaluation.generation_rows", f"the gate asks for {measure}; have at least {FEWEST_ROWS} rows answered"
        )


def _refused(field: str, issue: str) -> InvalidConfig:
    return InvalidConfig(f"{field}: {issue}", field=field, issue=issue)
