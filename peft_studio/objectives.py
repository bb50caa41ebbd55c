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
    REWARD = "reward"
    SEQUENCE_CLASSIFICATION = "sequence_classification"
    TOKEN_CLASSIFICATION = "token_classification"
    EMBEDDING = "embedding"
    GRPO = "grpo"


class Head(StrEnum):
    """What stands on the model's last hidden states; the names are PEFT's task types."""

    CAUSAL_LM = "CAUSAL_LM"
    SEQUENCE = "SEQ_CLS"
    TOKENS = "TOKEN_CLS"
    NONE = "FEATURE_EXTRACTION"


@dataclass(frozen=True)
class Aim:
    """One row: which layouts of rows an objective is trained on, and what may be asked of it."""

    formats: tuple[RowFormat, ...]
    head: Head = Head.CAUSAL_LM
    options: Mapping[str, Option] = field(default_factory=dict[str, Option])
    reference: bool = False  # whether rows are measured against what the base model makes of them
    dropout: bool = False  # off where answers are compared, which it would only blur; so it is in TRL

    @property
    def writes(self) -> bool:
        """Whether the trained model writes text, which can be served."""
        return self.head is Head.CAUSAL_LM

    @property
    def labels(self) -> bool:
        """Whether the rows have labels to choose among."""
        return any(layout in (RowFormat.LABELLED_TEXT, RowFormat.TOKEN_LABELS) for layout in self.formats)


_BETA = Option(float, 1e-4, 100, default=0.1)
_PAIRS = (RowFormat.PREFERENCE,)

AIMS: Mapping[Objective, Aim] = {
    Objective.SFT: Aim(
        (RowFormat.MESSAGES, RowFormat.PROMPT_COMPLETION, RowFormat.INSTRUCTION, RowFormat.TEXT), dropout=True
    ),
    Objective.DPO: Aim(
        _PAIRS,
        options={
            "beta": _BETA,
            "loss_type": Option(str, default="sigmoid", choices=("sigmoid", "hinge", "ipo", "robust")),
            "label_smoothing": Option(float, 0, 0.49, default=0.0),
        },
        reference=True,
    ),
    Objective.ORPO: Aim(_PAIRS, options={"beta": _BETA}),
    Objective.SIMPO: Aim(
        _PAIRS,
        options={
            "beta": _BETA,
            "simpo_gamma": Option(float, 0, 100, default=0.5),
            "cpo_alpha": Option(float, 0, 100, default=0.0),
            "label_smoothing": Option(float, 0, 0.5, default=0.0),
        },
    ),
    Objective.KTO: Aim(
        (RowFormat.UNPAIRED_PREFERENCE,),
        options={
            "beta": _BETA,
            "desirable_weight": Option(float, 0, 1000, default=1.0),
            "undesirable_weight": Option(float, 0, 1000, default=1.0),
        },
        reference=True,
    ),
    Objective.REWARD: Aim(
        _PAIRS, Head.SEQUENCE, options={"center_rewards_coefficient": Option(float, 0, 100, default=0.0)}
    ),
    Objective.SEQUENCE_CLASSIFICATION: Aim((RowFormat.LABELLED_TEXT,), Head.SEQUENCE, dropout=True),
    Objective.TOKEN_CLASSIFICATION: Aim((RowFormat.TOKEN_LABELS,), Head.TOKENS, dropout=True),
    Objective.EMBEDDING: Aim(
        (RowFormat.PAIRS,),
        Head.NONE,
        options={
            "scale": Option(float, 0.01, 1000, default=20.0),
            "pooling": Option(str, default="mean", choices=("mean", "last", "first")),
        },
    ),
    Objective.GRPO: Aim((RowFormat.PROMPT,), reference=True),  # its settings are peft_studio/grpo.py's
}
