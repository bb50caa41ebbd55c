"""Which promotion gates can ever be passed, said before anything is trained."""

from peft_studio.config import TrainingConfig
from peft_studio.datasets import split_rows
from peft_studio.errors import InvalidConfig
from peft_studio.evaluation.bootstrap import FEWEST_ROWS
from peft_studio.evaluation.comparison import GENERATED, OF_ROWS, Measure
from peft_studio.objectives import Objective
from peft_studio.plan import DatasetFacts
from peft_studio.row_formats import RowFormat

_UNANSWERED = (RowFormat.TEXT, RowFormat.PROMPT)


def sure_measures(config: TrainingConfig) -> tuple[Measure, ...]:
    """Return the measures of a job's evaluation that are known row by row, and so have an interval."""
    match config.objective:
        case Objective.SFT:
            own = OF_ROWS
        case Objective.GRPO:  # its loss is what the mean reward lacks of 0; no answer is right or wrong
            own = (Measure.LOSS,)
        case Objective.ORPO:  # its loss is a mean over tokens and one over pairs, added up
            own = (Measure.ACCURACY,)
        case Objective.SIMPO if config.objective_option("cpo_alpha"):  # the same
            own = (Measure.ACCURACY,)
        case _:
            own = (Measure.LOSS, Measure.ACCURACY)
    return (*own, *(GENERATED if config.aim.writes else ()))


def check_gate(config: TrainingConfig, dataset: DatasetFacts) -> None:
    """Raise ``InvalidConfig`` with the field where a job's gate asks for what its evaluation will not have."""
    if config.deploy is None or config.deploy.only_if is None:
        return
    measure = config.deploy.only_if.measure
    if measure not in (known := sure_measures(config)):
        raise _refused(
            "deploy.only_if.measure",
            f"of {_named(config)}, {measure} is not known row by row, so that nobody can say how sure a gain in it is; "
            f"use one of {', '.join(known)}",
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


def _named(config: TrainingConfig) -> str:
    weighed = config.objective is Objective.SIMPO and config.objective_option("cpo_alpha")
    return f"{config.objective} with cpo_alpha" if weighed else str(config.objective)


def _refused(field: str, issue: str) -> InvalidConfig:
    return InvalidConfig.of(field, issue)
