"""Dataset: rows that were uploaded to the studio, as users see them; its id stands where a path would."""

import re
from datetime import datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Self

from pydantic import BaseModel, Field

from peft_studio.plan import DatasetFacts, RowFormat

PREFIX = "dataset_"
LONGEST_NAME = 200
_ID = re.compile(PREFIX + "[0-9a-f]{32}")


class FileType(StrEnum):
    """How a file holds rows."""

    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"

    @classmethod
    def of(cls, name: str) -> Self | None:
        """Tell the type by a file name's ending; None where that says nothing."""
        ending = PurePosixPath(name).suffix.lower().removeprefix(".")
        return next((kind for kind in cls if kind == {"ndjson": "jsonl"}.get(ending, ending)), None)


class Dataset(BaseModel):
    """A data set in the studio's store; all of its rows can be trained on."""

    dataset_id: str
    name: str = Field(description="What it was called when it was uploaded: a label, not a path.")
    format: RowFormat
    file_type: FileType
    rows: int
    size_bytes: int
    sha256: str
    characters: int = Field(description="Characters of text in all rows.")
    created_at: datetime = Field(description="When its upload began.")
    path: str = Field(description="The file, on the machine that runs the studio.")

    @property
    def facts(self) -> DatasetFacts:
        """What a plan has to know of it."""
        return DatasetFacts(
            path=self.path,
            sha256=self.sha256,
            format=self.format,
            rows=self.rows,
            bytes=self.size_bytes,
            characters=self.characters,
        )


def is_dataset_id(text: str) -> bool:
    """Whether this can be the id of a data set in the store."""
    return bool(_ID.fullmatch(text))


def label(name: str) -> str:
    """Make a name that is safe to show of one that anybody may have made up: no folders, nothing invisible, short."""
    last = re.split(r"[/\\]", name)[-1]
    shown = "".join(character for character in last if character.isprintable()).strip()
    ending = PurePosixPath(shown).suffix[:20]
    return shown if len(shown) <= LONGEST_NAME else shown[: LONGEST_NAME - len(ending)] + ending
