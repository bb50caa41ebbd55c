"""Reward functions of the operator's own: which of them jobs may name."""

from itertools import islice

from infra.settings import Settings
from peft_studio import datasets
from peft_studio.config import TrainingConfig
from peft_studio.errors import InvalidConfig

FIELD = "grpo.rewards"


def check_rewards(config: TrainingConfig, settings: Settings, *, rented: bool) -> None:
    """Refuse functions that the operator has not allowed, and those that are not where the job trains."""
    for reward in config.grpo.rewards if config.grpo else ():
        if not reward.is_own:
            continue
        if not is_allowed(reward.function, settings):
            raise _invalid(
                f"the operator has not allowed {reward.function}: it has to stand in PEFT_STUDIO_REWARD_FUNCTIONS"
            )
        if rented:
            raise _invalid(f"{reward.function} is on this machine and not on rented ones; train here, or name another")


def check_columns(config: TrainingConfig, path: str) -> None:
    """Refuse a data set whose first row lacks what answers are to be compared with; the trainer looks at all rows."""
    if config.grpo is None:
        return
    for example in islice(datasets.examples(path, config.columns, config.objective), 1):
        for reward in config.grpo.rewards:
            if reward.column is not None and example.columns.get(reward.column) is None:
                has = ", ".join(sorted(example.columns)[:8]) or "none"
                raise _invalid(
                    f"{reward.function} compares answers with the column {reward.column!r}, which the data set's first "
                    f"row has not; beside the prompt it has {has}"
                )


def is_allowed(path: str, settings: Settings) -> bool:
    """Tell whether a function, or its whole module, is one that the operator has allowed."""
    return path in settings.reward_functions or path.partition(":")[0] in settings.reward_functions


def _invalid(issue: str) -> InvalidConfig:
    return InvalidConfig.of(FIELD, issue)
