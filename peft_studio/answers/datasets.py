"""Answers about data sets."""

from datetime import datetime

from peft_studio.answers.answer import Answer


class Dataset(Answer):
    """A data set in the studio's store."""

    dataset_id: str
    name: str
    format: str
    file_type: str
    rows: int
    size_bytes: int
    sha256: str
    characters: int
    created_at: datetime
    path: str


class DatasetList(Answer):
    """A page of data sets, newest first."""

    datasets: list[Dataset]
    next_cursor: str | None = None


class Token(Answer):
    """One token of a row as the model will see it; ``loss`` says whether it is learned from."""

    id: int
    text: str
    loss: bool


class Sample(Answer):
    """One row as the model will see it."""

    row: int
    text: str
    tokens: list[Token]
    supervised_tokens: int
    truncated: bool


class DatasetPreview(Answer):
    """What a base model will see of a data set."""

    base_model: str
    samples: list[Sample]
    supervised_share: float
    truncated_rows: int
    duplicate_rows: list[int]
    empty_rows: list[int]
