"""Answers about experiments."""

from peft_studio.answers.answer import Answer
from peft_studio.experiments import Experiment


class ExperimentList(Answer):
    """A page of experiments, newest first."""

    experiments: list[Experiment]
    next_cursor: str | None = None
