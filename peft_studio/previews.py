"""DatasetPreview: a data set's rows as a base model will see them, and the question that asks for it."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from peft_studio.choices import LongRows
from peft_studio.config import Column

RowNumbers = Annotated[list[int], Field(description="Rows by number, the first is 1; at most a hundred of them.")]


class Token(BaseModel):
    """One token; those with ``loss`` are what the model learns to say."""

    id: int
    text: str
    loss: bool


class Sample(BaseModel):
    """
    One text of a row as the model sees it; a row of preferences has several, the chosen one first, and so has a long
    row that is split.

    The texts of the tokens, one behind the other, are ``text``, and special tokens that are added to it.
    """

    row: int
    text: str
    tokens: list[Token]
    supervised_tokens: int
    truncated: bool


class DatasetPreview(BaseModel):
    """What training on a data set with a base model will look at, told by the first ``examined_rows`` rows."""

    model_config = ConfigDict(protected_namespaces=())

    base_model: str
    samples: list[Sample]
    examined_rows: int
    tokens: int = Field(description="Tokens in the examined rows, those that are cut off not counted.")
    supervised_share: float = Field(description="Of these tokens, the share that carries loss.")
    truncated_rows: int = Field(description="Examined rows that are cut to max_length.")
    dropped_rows: int = Field(default=0, description="Examined rows that are left out: they are longer than that.")
    split_rows: int = Field(default=0, description="Examined rows that become several, each a sample here.")
    duplicate_rows: RowNumbers = Field(description="Examined rows that say the same as an earlier one.")
    empty_rows: RowNumbers = Field(
        description="Examined rows that are not trained on: nothing is left of their answer."
    )


class PreviewRequest(BaseModel):
    """What ``python -m peft_studio.trainer.preview`` reads from its standard input."""

    model_config = ConfigDict(protected_namespaces=())

    path: str
    base_model: str
    model_source: str
    model_revision: str | None = None
    limit: int
    max_length: int
    columns: dict[Column, str] = {}
    long_rows: LongRows = LongRows.TRUNCATE


class PreviewAnswer(BaseModel):
    """What it writes to its standard output: a preview, or why there is none."""

    preview: DatasetPreview | None = None
    code: str | None = None
    message: str | None = None
    details: dict[str, Any] = Field(default_factory=dict)
