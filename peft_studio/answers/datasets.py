"""Answers about data sets."""

from peft_studio.answers.answer import Answer
from peft_studio.stored_datasets import Dataset


class DatasetList(Answer):
    """A page of data sets, newest first."""

    datasets: list[Dataset]
    next_cursor: str | None = None
