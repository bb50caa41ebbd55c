"""The objectives that the trainer knows: for each name in the table, the module that does it."""

from collections.abc import Mapping
from typing import Any

from peft_studio.config import TrainingConfig
from peft_studio.objectives import Objective
from peft_studio.trainer.model import Base
from peft_studio.trainer.objectives.classification import SequenceClassification, TokenClassification
from peft_studio.trainer.objectives.criterion import Criterion
from peft_studio.trainer.objectives.dpo import Dpo
from peft_studio.trainer.objectives.embedding import Embedding
from peft_studio.trainer.objectives.grpo import Grpo
from peft_studio.trainer.objectives.kto import Kto
from peft_studio.trainer.objectives.orpo import Orpo
from peft_studio.trainer.objectives.reward import Reward
from peft_studio.trainer.objectives.sft import Sft
from peft_studio.trainer.objectives.simpo import Simpo

CRITERIA: Mapping[Objective, type[Criterion[Any]]] = {
    Objective.SFT: Sft,
    Objective.DPO: Dpo,
    Objective.ORPO: Orpo,
    Objective.SIMPO: Simpo,
    Objective.KTO: Kto,
    Objective.REWARD: Reward,
    Objective.SEQUENCE_CLASSIFICATION: SequenceClassification,
    Objective.TOKEN_CLASSIFICATION: TokenClassification,
    Objective.EMBEDDING: Embedding,
    Objective.GRPO: Grpo,
}


def criterion_of(config: TrainingConfig, base: Base) -> Criterion[Any]:
    """Make what a job is trained by."""
    return CRITERIA[config.objective](config, base)
