"""Answers about experiments."""

from pydantic import Field

from peft_studio.answers.answer import Answer
from peft_studio.experiments import Experiment, UnavailableTracker


class ExperimentList(Answer):
    """A page of experiments, newest first."""

    experiments: list[Experiment]
    next_cursor: str | None = None
    unavailable_trackers: list[UnavailableTracker] = Field(default_factory=list[UnavailableTracker])
