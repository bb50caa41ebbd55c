"""What an adapter is trained for: the table of objectives, read by validation, data sets and the trainer alike."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from peft_studio.algorithms import Option
from peft_studio.row_formats import RowFormat


class Objective(StrEnum):
    """What the adapter is trained for."""

    SFT = "sft"
    DPO = "dpo"
    ORPO = "orpo"
    SIMPO = "simpo"
    KTO = "kto"


@dataclass(frozen=True)
class Aim:
    """One row: which layouts of rows an objective is trained on, and what may be asked of it."""

    formats: tuple[RowFormat, ...]
    options: Mapping[str, Option] = field(default_factory=dict[str, Option])
    reference: bool = False  # whether rows are measured against what the base model makes of them
    dropout: bool = False  # the others compare likelihoods, which dropout would only blur; so it is in TRL


_BETA = Option(float, 1e-4, 100, default=0.1)
_PAIRS = (RowFormat.PREFERENCE,)

AIMS: Mapping[Objective, Aim] = {
    Objective.SFT: Aim(
        (RowFormat.MESSAGES, RowFormat.PROMPT_COMPLETION, RowFormat.INSTRUCTION, RowFormat.TEXT), dropout=True
    ),
    Objective.DPO: Aim(
        _PAIRS,
        {
            "beta": _BETA,
            "loss_type": Option(str, default="sigmoid", choices=("sigmoid", "hinge", "ipo", "robust")),
            "label_smoothing": Option(float, 0, 0.49, default=0.0),
        },
        reference=True,
    ),
    Objective.ORPO: Aim(_PAIRS, {"beta": _BETA}),
    Objective.SIMPO: Aim(
        _PAIRS,
        {
            "beta": _BETA,
            "simpo_gamma": Option(float, 0, 100, default=0.5),
            "cpo_alpha": Option(float, 0, 100, default=0.0),
            "label_smoothing": Option(float, 0, 0.5, default=0.0),
        },
    ),
    Objective.KTO: Aim(
        (RowFormat.UNPAIRED_PREFERENCE,),
        {
            "beta": _BETA,
            "desirable_weight": Option(float, 0, 1000, default=1.0),
            "undesirable_weight": Option(float, 0, 1000, default=1.0),
        },
        reference=True,
    ),
}
